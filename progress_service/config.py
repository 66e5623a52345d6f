"""Settings: their defaults, how they are read from the environment, and what must be said before the service starts."""

from collections.abc import Mapping
from typing import Any

from flask import Flask
from jwt.algorithms import requires_cryptography
from sqlalchemy import make_url

DEFAULTS: dict[str, Any] = {
    "SQLALCHEMY_DATABASE_URI": "sqlite:///progress.db",
    "MAX_CONTENT_LENGTH": 1024 * 1024,
    "PROVIDE_AUTOMATIC_OPTIONS": False,
    "AUTO_ENROLL": True,
    "JWT_DECODE_LEEWAY": 10,
    "ROLE_CLAIM": "role",
    "POOL_SIZE": 4,
    "POOL_TIMEOUT": 3,
    "CONNECT_TIMEOUT": 3,
    "LOCK_TIMEOUT": 10,
    "STATEMENT_TIMEOUT": 15,
    "CATALOG_TIMEOUT": 300,
}
KEYS = {
    "JWT_SECRET_KEY": {"HS256", "HS384", "HS512"},
    "JWT_PUBLIC_KEY": requires_cryptography,
    "JWT_JWKS_URL": requires_cryptography,
}
"""Where the key of tokens may come from, and which algorithms go with it."""


class ConfigurationError(Exception):
    """The service cannot start with these settings; says which to give."""


def load(app: Flask, overrides: Mapping[str, Any] | None) -> None:
    """Configure an application from defaults, the environment (`PROGRESS_...`) and overrides, in this order."""
    app.config.from_mapping(DEFAULTS)
    app.config.from_prefixed_env("PROGRESS", loads=_parse)
    app.config.from_mapping(overrides or {})
    for name, default in DEFAULTS.items():
        app.config[name] = _typed(name, app.config[name], type(default))
    _check_key(app.config)
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", _engine_options(app.config))


def _parse(text: str) -> str | bool:
    """Read what a variable says: a boolean in any case, or text, since a secret of digits is one."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _typed(name: str, value: Any, kind: type) -> Any:
    """Give a setting that was written as text its type."""
    if type(value) is kind:
        return value
    if kind is bool and value in ("1", "0"):
        return value == "1"
    if kind is int and isinstance(value, str) and value.isdecimal():
        return int(value)
    wanted = {bool: "true or false", int: "a whole number"}.get(kind, "text")
    raise ConfigurationError(f"PROGRESS_{name} must be {wanted}, not {value!r}.")


def _check_key(config: dict[str, Any]) -> None:
    given = [name for name in KEYS if config.get(name)]
    if len(given) != 1:
        raise ConfigurationError(
            "Tokens need one key: give PROGRESS_JWT_SECRET_KEY (HS256), or PROGRESS_JWT_PUBLIC_KEY"
            " or PROGRESS_JWT_JWKS_URL with PROGRESS_JWT_ALGORITHM (such as RS256)."
        )
    algorithm = config.setdefault("JWT_ALGORITHM", "HS256" if config.get("JWT_SECRET_KEY") else "RS256")
    if algorithm not in KEYS[given[0]]:
        raise ConfigurationError(f"PROGRESS_JWT_ALGORITHM {algorithm} does not go with the key that is given.")
    config["JWT_DECODE_ALGORITHMS"] = [algorithm]
    for claim in ("ISSUER", "AUDIENCE"):  # of the tokens that `flask token` makes
        config.setdefault(f"JWT_ENCODE_{claim}", config.get(f"JWT_DECODE_{claim}"))


def _engine_options(config: dict[str, Any]) -> dict[str, Any]:
    options = {"hide_parameters": True}  # from error messages, which are logged
    if make_url(config["SQLALCHEMY_DATABASE_URI"]).get_backend_name() == "sqlite":
        return options
    return options | {
        "pool_size": config["POOL_SIZE"],
        "max_overflow": 0,
        "pool_timeout": config["POOL_TIMEOUT"],
        "connect_args": {
            "autocommit": True,  # transactions begin as `storage` says
            "client_encoding": "utf8",
            "connect_timeout": config["CONNECT_TIMEOUT"],
            # A peer that has vanished without a word is found out by the time that a statement may take.
            "tcp_user_timeout": 1000 * config["STATEMENT_TIMEOUT"],
            "keepalives_idle": max(1, config["STATEMENT_TIMEOUT"] // 2),
            "keepalives_interval": max(1, config["STATEMENT_TIMEOUT"] // 4),
            "keepalives_count": 2,
        },
    }

"""The settings: their defaults, how the environment gives them, and the checks before the service starts."""

import os
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from click import ClickException
from flask import Flask
from gunicorn.errors import AppImportError  # type: ignore[import-untyped]
from jwt.algorithms import requires_cryptography
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

DEFAULTS: dict[str, Any] = {
    "SQLALCHEMY_DATABASE_URI": "sqlite:///progress.db",
    "MAX_CONTENT_LENGTH": 1024 * 1024,
    "PROVIDE_AUTOMATIC_OPTIONS": False,
    "AUTO_ENROLL": True,
    "SESSION_DAYS": 30,
    "CHANGES_DAYS": 365,
    "PURGE_SECONDS": 60,
    "WEBHOOK_HOSTS": "",
    "WEBHOOK_KEY": "",
    "JWT_DECODE_ISSUER": "",
    "JWT_DECODE_AUDIENCE": "",
    "JWT_DECODE_LEEWAY": 10,
    "USER_CLAIM": "sub",
    "ROLE_CLAIM": "role",
    "ROLE_NAMES": "{}",
    "POOL_SIZE": 16,
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
"""The settings that may hold the key of tokens, each with the algorithms that its key can have."""


class ConfigurationError(ClickException, AppImportError):  # type: ignore[misc]
    """The service cannot start with these settings. Commands and gunicorn end with the message as their only line."""

    exit_code = os.EX_CONFIG


def load(app: Flask, overrides: Mapping[str, Any] | None) -> None:
    """Configure an application from defaults, the environment (`PROGRESS_...`) and overrides, in this order."""
    app.config.from_mapping(DEFAULTS)
    app.config.from_prefixed_env("PROGRESS", loads=_parse)
    app.config.from_mapping(overrides or {})
    for name, default in DEFAULTS.items():
        app.config[name] = _typed(name, app.config[name], type(default))
    _check_key(app.config)
    _set_up_tokens(app.config)
    url = _database_url(app.config["SQLALCHEMY_DATABASE_URI"])
    app.config["SQLALCHEMY_DATABASE_URI"] = url.render_as_string(hide_password=False)
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", _engine_options(app.config, url))


def _parse(text: str) -> str | bool:
    """Read `true` and `false`, in any case, as booleans; everything else is text, since a secret may be digits."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _typed(name: str, value: Any, type_: type) -> Any:
    """Return a setting, which may be given as text, with its type."""
    if type(value) is type_:
        return value
    if type_ is bool and value in ("1", "0"):
        return value == "1"
    if type_ is int and isinstance(value, str) and value.isdecimal():
        return int(value)
    wanted = {bool: "true or false", int: "a whole number"}.get(type_, "text")
    raise ConfigurationError(f"PROGRESS_{name} must be {wanted}, not {value!r}.")


def _set_up_tokens(config: dict[str, Any]) -> None:
    """Set up Flask-JWT-Extended, and refuse settings of that library that this service does not offer."""
    known = {*KEYS, *DEFAULTS, "JWT_ALGORITHM"}
    for name in config:
        if name.startswith("JWT_") and name not in known:
            raise ConfigurationError(
                f"There is no setting PROGRESS_{name}. PROGRESS_USER_CLAIM and PROGRESS_ROLE_CLAIM name claims."
            )
    audiences = [name.strip() for name in config["JWT_DECODE_AUDIENCE"].split(",") if name.strip()]
    if config["JWT_DECODE_AUDIENCE"] and not audiences:
        raise ConfigurationError("PROGRESS_JWT_DECODE_AUDIENCE names no audience.")
    expected = {"AUDIENCE": audiences or None, "ISSUER": config["JWT_DECODE_ISSUER"] or None}
    for claim, value in expected.items():
        config[f"JWT_DECODE_{claim}"] = config[f"JWT_ENCODE_{claim}"] = value
    config["JWT_DECODE_ALGORITHMS"] = [config["JWT_ALGORITHM"]]
    # Every token needs an expiry, but not always a subject: USER_CLAIM may name another claim.
    config["JWT_IDENTITY_CLAIM"], config["JWT_VERIFY_SUB"] = "exp", False


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


def _database_url(written: str) -> URL:
    """Read the URL of the database: for PostgreSQL as its own programs do, for SQLite as SQLAlchemy does.

    Raises ConfigurationError, which shows no part of the URL, since any part may belong to a password.
    """
    scheme, _, rest = written.partition("://")
    try:
        if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
            return _postgresql_url(rest)
        if scheme in ("sqlite", "sqlite+pysqlite") and not (url := make_url(written)).host:
            return url
    except (ArgumentError, ProgrammingError, ValueError):
        pass  # so that the cause, which quotes the URL, is not shown
    raise ConfigurationError(
        "PROGRESS_SQLALCHEMY_DATABASE_URI cannot be read: write postgresql://user:password@host:5432/name with signs"
        " such as @, / and % of the password as %40, %2F and %25, and several hosts as host:5432,other:5432, or"
        " sqlite:////path/to/file."
    )


def _postgresql_url(written: str) -> URL:
    """Read the part behind the scheme: user and password, encoded or not, and the rest as libpq reads it.

    Raises ProgrammingError or ValueError.
    """
    begin, _, parameters = written.partition("?")
    credentials, _, address = begin.partition("@") if "@" in begin else ("", "", begin)
    user, _, password = map(unquote, credentials.partition(":"))
    given = parse_qsl(parameters, keep_blank_values=True)
    if "@" in address or len(dict(given)) < len(given):
        raise ValueError("libpq takes the rest of a password for a host, and drops the first of two parameters")
    query: dict[str, Any] = conninfo_to_dict(f"postgresql://{address}?{urlencode(given, quote_via=quote)}")
    hosts, ports = (str(query.get(name, "")).split(",") for name in ("host", "port"))
    for host in hosts:
        if ":" in host and not host.startswith("/"):
            IPv6Address(host)
    if any(port and not 0 < int(port) < 2**16 for port in ports) or len(ports) not in (1, len(hosts)):
        raise ValueError("ports are from 1 to 65535, one for all hosts or one for each")
    if any(ports):
        query["port"] = ",".join(ports * len(hosts) if len(ports) == 1 else ports)
    user, password = (query.pop(name, value or None) for name, value in (("user", user), ("password", password)))
    return URL.create("postgresql+psycopg", user, password, database=query.pop("dbname", None), query=query)


def _engine_options(config: dict[str, Any], url: URL) -> dict[str, Any]:
    options = {"hide_parameters": True}  # error messages are logged
    if url.get_backend_name() == "sqlite":
        return options
    usual = {
        "connect_timeout": config["CONNECT_TIMEOUT"],
        # A server that vanishes silently is noticed within the time that a statement may take.
        "tcp_user_timeout": 1000 * config["STATEMENT_TIMEOUT"],
        "keepalives_idle": max(1, config["STATEMENT_TIMEOUT"] // 2),
        "keepalives_interval": max(1, config["STATEMENT_TIMEOUT"] // 4),
        "keepalives_count": 2,
    }
    if "," in url.query.get("host", ""):
        usual["target_session_attrs"] = "read-write"
    by_environment = {
        option.keyword.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar and option.envvar.decode() in os.environ
    }
    return options | {
        "pool_size": config["POOL_SIZE"],
        "max_overflow": 0,
        "pool_timeout": config["POOL_TIMEOUT"],
        "connect_args": {
            "autocommit": True,  # `database` begins transactions
            "client_encoding": "utf8",
            **{name: value for name, value in usual.items() if name not in {*url.query, *by_environment}},
        },
    }

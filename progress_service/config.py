"""The settings: their defaults, how the environment gives them, and the checks before the service starts."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode
from warnings import catch_warnings

from click import ClickException
from flask import Flask
from jwt.algorithms import requires_cryptography
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, SAWarning

PREFIX = "PROGRESS_"
REPLICA = "replica"
"""The name of the engine whose servers are replicas, if the settings have them."""


class Whole(NamedTuple):
    """A setting that is a whole number: its default, and the least and the most that it may be."""

    default: int
    least: int
    most: int


DEFAULTS: dict[str, str | bool | Whole] = {
    "SQLALCHEMY_DATABASE_URI": "sqlite:///progress.db",
    "SQLALCHEMY_REPLICA_URI": "",
    "REPLICA_LAG_SECONDS": Whole(5, 0, 3600),
    "REPLICA_WAIT_MILLISECONDS": Whole(200, 0, 10_000),
    "MAX_CONTENT_LENGTH": Whole(1024 * 1024, 64, 1024**3),
    "AUTO_ENROLL": True,
    "SESSION_DAYS": Whole(30, 1, 36_500),
    "CHANGES_DAYS": Whole(365, 1, 36_500),
    "PURGE_SECONDS": Whole(60, 0, 86_400),
    "WEBHOOK_HOSTS": "",
    "WEBHOOK_KEY": "",
    "JWT_PREVIOUS_SECRET_KEY": "",
    "JWT_DECODE_ISSUER": "",
    "JWT_DECODE_AUDIENCE": "",
    "JWT_DECODE_LEEWAY": Whole(10, 0, 3600),
    "USER_CLAIM": "sub",
    "ROLE_CLAIM": "role",
    "ROLE_NAMES": "{}",
    "LOG_FORMAT": "",
    "LOG_LEVEL": "info",
    "POOL_SIZE": Whole(16, 1, 1000),
    "POOL_TIMEOUT": Whole(3, 0, 3600),
    "CONNECT_TIMEOUT": Whole(3, 1, 3600),
    "LOCK_TIMEOUT": Whole(10, 1, 3600),
    "STATEMENT_TIMEOUT": Whole(15, 1, 3600),
    "CATALOG_TIMEOUT": Whole(300, 1, 86_400),
    "BIND": "127.0.0.1",
    "FORWARDED_ALLOW_IPS": "127.0.0.1,::1",
    "CLIENT_TIMEOUT": Whole(30, 1, 3600),
    "KEEPALIVE_TIMEOUT": Whole(75, 0, 3600),
    "DRAIN_SECONDS": Whole(0, 0, 3600),
    "GRACEFUL_TIMEOUT": Whole(30, 1, 3600),
}
"""The settings with their defaults, by their names without the prefix."""
FOR_PLATFORMS = {"PORT": Whole(8000, 0, 65_535), "WEB_CONCURRENCY": Whole(0, 0, 1000)}
"""The settings without the prefix, since platforms give them by these names. WEB_CONCURRENCY 0: by the processors."""
FOR_DEVELOPERS = {"DEBUG", "TESTING", "PROPAGATE_EXCEPTIONS", "SQLALCHEMY_ECHO"}
"""The booleans of Flask and Flask-SQLAlchemy that may be given too."""
KEYS = {
    "JWT_SECRET_KEY": {"HS256", "HS384", "HS512"},
    "JWT_PUBLIC_KEY": requires_cryptography,
    "JWT_JWKS_URL": requires_cryptography,
}
"""The settings that may hold the key of tokens, each with the algorithms that its key can have."""
FROM_FILES = (
    "SQLALCHEMY_DATABASE_URI",
    "SQLALCHEMY_REPLICA_URI",
    "JWT_SECRET_KEY",
    "JWT_PREVIOUS_SECRET_KEY",
    "JWT_PUBLIC_KEY",
    "WEBHOOK_KEY",
)
"""The settings that a file may hold, which the same name with `_FILE` gives."""

REPLICA_SECONDS = 2  # the least that libpq knows
"""How many seconds a replica may take to accept a connection, and to say how far it is."""
OF_REPLICAS = {
    "connect_timeout": REPLICA_SECONDS,
    "tcp_user_timeout": 1000 * (REPLICA_SECONDS + 1),
    "target_session_attrs": "standby",
    "load_balance_hosts": "random",
}
"""How replicas are connected to: they are given up soon, since the primary can answer too."""

# What Kubernetes gives to containers beside a Service whose name begins with "progress".
_LINK = re.compile(
    r"(\w+_)?("
    r"SERVICE_HOST=[0-9a-f.:]+|SERVICE_PORT(_\w+)?=\d+"
    r"|PORT(_\d+_(TCP|UDP|SCTP))?=(tcp|udp|sctp)://[0-9a-f.:[\]]+"
    r"|PORT_\d+_(TCP|UDP|SCTP)_(PROTO=(tcp|udp|sctp)|PORT=\d+|ADDR=[0-9a-f.:]+))",
    re.ASCII,
)

_ADDRESS = re.compile(r"unix:[^\s,]+|[\w.-]+|\[[0-9A-Fa-f:.]+\]")


class ConfigurationError(ClickException):
    """The service cannot start with these settings. Whatever starts it ends with the message as its only line."""

    exit_code = os.EX_CONFIG


def load(app: Flask, overrides: Mapping[str, Any] | None) -> None:
    """Configure an application from defaults, the environment (`PROGRESS_...`) and overrides, in this order.

    Raises ConfigurationError, which shows nothing of a secret.
    """
    found = {name.removeprefix(PREFIX): _parse(text) for name, text in os.environ.items() if _is_setting(name, text)}
    files = {name: str(path) for name in FROM_FILES if (path := found.pop(f"{name}_FILE", ""))}
    faults = [_unknown(name) for name in sorted(found.keys() - _known())]
    given: dict[str, Any] = {name: found[name] for name in found.keys() & _known()}
    given |= {name: os.environ[name] for name in FOR_PLATFORMS if os.environ.get(name)}
    given |= {name: _read(name, path, given.get(name)) for name, path in files.items()} | dict(overrides or {})
    for name, default in (DEFAULTS | FOR_PLATFORMS | dict.fromkeys(FOR_DEVELOPERS & given.keys(), False)).items():
        try:
            given[name] = _typed(name, given.get(name, default), default)
        except ConfigurationError as fault:
            faults.append(fault.message)
    if faults:
        raise ConfigurationError(" ".join(faults))
    app.config.from_mapping(given, PROVIDE_AUTOMATIC_OPTIONS=False)
    _check_addresses(app.config)
    _check_key(app.config)
    _set_up_tokens(app.config)
    url = _database_url("SQLALCHEMY_DATABASE_URI", app.config)
    app.config["SQLALCHEMY_DATABASE_URI"] = url.render_as_string(hide_password=False)
    app.config.setdefault("SQLALCHEMY_ENGINE_OPTIONS", _engine_options(app.config, url))
    if app.config["SQLALCHEMY_REPLICA_URI"]:
        replica = _database_url("SQLALCHEMY_REPLICA_URI", app.config)
        if {each.get_backend_name() for each in (url, replica)} != {"postgresql"}:
            raise ConfigurationError("PROGRESS_SQLALCHEMY_REPLICA_URI needs PostgreSQL, as primary and as replica.")
        app.config["SQLALCHEMY_BINDS"] = {
            REPLICA: {"url": replica, **_engine_options(app.config, replica, **OF_REPLICAS)}
        }


def _is_setting(name: str, text: str) -> bool:
    return name.startswith(PREFIX) and not _LINK.fullmatch(f"{name.removeprefix(PREFIX)}={text}")


def _parse(text: str) -> str | bool:
    """Read `true` and `false`, in any case, as booleans; everything else is text, since a secret may be digits."""
    return {"true": True, "false": False}.get(text.lower(), text)


def _read(name: str, path: str, other: object) -> str:
    """Return a setting from its file, without a line end. Raises ConfigurationError, which shows nothing of it."""
    variable = f"{PREFIX}{name}_FILE"
    if other:
        raise ConfigurationError(f"{variable} is given, and {PREFIX}{name} too.")
    try:
        text = Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{variable}: {path!r} is not UTF-8.") from None  # the cause quotes it
    except OSError as error:
        raise ConfigurationError(f"{variable}: {path!r} cannot be read: {error.strerror}.") from error
    if not (text := re.sub(r"\r?\n\Z", "", text)):
        raise ConfigurationError(f"{variable}: {path!r} is empty.")
    return text


def _known() -> set[str]:
    """Return the names of the settings that the environment gives with the prefix."""
    return {*DEFAULTS, *KEYS, "JWT_ALGORITHM", *FOR_DEVELOPERS}


def _variable(name: str) -> str:
    """Return the variable of the environment that gives a setting."""
    return name if name in FOR_PLATFORMS else PREFIX + name


def _unknown(name: str) -> str:
    """Tell that there is no such setting, and which one is perhaps meant."""
    names = [*FOR_PLATFORMS, *sorted(_known()), *(f"{name}_FILE" for name in FROM_FILES)]
    nearest = get_close_matches(name, names, 1)
    return f"There is no setting {PREFIX}{name}." + "".join(f" Is {_variable(meant)} meant?" for meant in nearest)


def _typed(name: str, value: Any, default: str | bool | Whole) -> Any:
    """Return a setting, which may be given as text, with the type of its default."""
    if value is default:
        return default.default if isinstance(default, Whole) else default
    if isinstance(default, Whole):
        if isinstance(value, str) and re.fullmatch("[0-9]{1,12}", value):
            value = int(value)
        if type(value) is int and default.least <= value <= default.most:
            return value
        wanted = f"a whole number from {default.least} to {default.most}"
    elif type(value) is type(default):
        return value
    elif type(default) is bool and value in ("1", "0"):
        return value == "1"
    else:
        wanted = "true or false" if type(default) is bool else "text"
    raise ConfigurationError(f"{_variable(name)} must be {wanted}, not {value!r}.")


def _check_addresses(config: Mapping[str, Any]) -> None:
    """Refuse what gunicorn could not use."""
    if not all(_ADDRESS.fullmatch(address) for address in config["BIND"].split(",")):
        raise ConfigurationError(
            "PROGRESS_BIND must be hosts without a port, such as 0.0.0.0 or [::], or unix:/path, with commas."
        )
    try:
        for network in config["FORWARDED_ALLOW_IPS"].split(","):
            if network != "*":
                ip_network(network)
    except ValueError:
        raise ConfigurationError(
            "PROGRESS_FORWARDED_ALLOW_IPS must be addresses or networks, with commas, or *."
        ) from None


def _set_up_tokens(config: dict[str, Any]) -> None:
    """Set up Flask-JWT-Extended."""
    audiences = [name.strip() for name in config["JWT_DECODE_AUDIENCE"].split(",") if name.strip()]
    if config["JWT_DECODE_AUDIENCE"] and not audiences:
        raise ConfigurationError("PROGRESS_JWT_DECODE_AUDIENCE names no audience.")
    for claim in ("USER_CLAIM", "ROLE_CLAIM"):
        if not config[claim]:
            raise ConfigurationError(f"PROGRESS_{claim} names no claim.")
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
            f"Tokens need one key, not {len(given)}: give PROGRESS_JWT_SECRET_KEY (HS256), or PROGRESS_JWT_PUBLIC_KEY"
            " or PROGRESS_JWT_JWKS_URL with PROGRESS_JWT_ALGORITHM (such as RS256)."
        )
    if config["JWT_PREVIOUS_SECRET_KEY"] and given != ["JWT_SECRET_KEY"]:
        raise ConfigurationError("PROGRESS_JWT_PREVIOUS_SECRET_KEY needs PROGRESS_JWT_SECRET_KEY, which signs now.")
    algorithm = config.setdefault("JWT_ALGORITHM", "HS256" if config.get("JWT_SECRET_KEY") else "RS256")
    if algorithm not in KEYS[given[0]]:
        raise ConfigurationError(f"PROGRESS_JWT_ALGORITHM {algorithm!r} does not go with the key that is given.")


def _database_url(name: str, config: Mapping[str, Any]) -> URL:
    """Read the URL of a database: for PostgreSQL as its own programs do, for SQLite as SQLAlchemy does.

    Raises ConfigurationError, which shows no part of the URL, since any part may belong to a password.
    """
    written: str = config[name]
    scheme, _, rest = written.partition("://")
    try:
        if scheme in ("postgres", "postgresql", "postgresql+psycopg"):
            return _postgresql_url(rest)
        if scheme in ("sqlite", "sqlite+pysqlite"):
            return _sqlite_url(written)
    except (ArgumentError, ProgrammingError, SAWarning, ValueError):
        pass  # so that the cause, which quotes the URL, is not shown
    raise ConfigurationError(
        f"{_variable(name)} cannot be read: write postgresql://user:password@host:5432/name with signs"
        " such as @, / and % of the password as %40, %2F and %25, and several hosts as host:5432,other:5432, or"
        " sqlite:////path/to/file."
    )


def _sqlite_url(written: str) -> URL:
    """Read a URL of SQLite. Raises ArgumentError, ValueError or SAWarning, also for its parameters."""
    url = make_url(written)
    with catch_warnings(action="error"):  # a parameter that does nothing
        url.get_dialect()().create_connect_args(url)
    return url


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
    int(query.get("connect_timeout", 0))  # which psycopg reads only when it connects
    if any(ports):
        query["port"] = ",".join(ports * len(hosts) if len(ports) == 1 else ports)
    user, password = (query.pop(name, value or None) for name, value in (("user", user), ("password", password)))
    return URL.create("postgresql+psycopg", user, password, database=query.pop("dbname", None), query=query)


def _engine_options(config: dict[str, Any], url: URL, **others: Any) -> dict[str, Any]:
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
    usual |= others
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

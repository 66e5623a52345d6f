"""What the log tells: a line for each request, and one for each fault, for people or for programs.

A line for programs has the names of the Elastic Common Schema; docs/operating.md ("Logs") lists them. No line has a
token, a body, a path or an id of a person. Messages of exceptions may quote these, so exceptions are told by their
types and places.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http import HTTPMethod
from importlib.metadata import version
from pathlib import Path
from traceback import walk_tb
from typing import Any
from uuid import uuid4

from flask import Flask, Response, current_app, request
from gunicorn import glogging  # type: ignore[import-untyped]

from progress_service import facts
from progress_service.config import ConfigurationError
from progress_service.facts import Facts

SCHEMA = "8.11.0"
"""The version of the Elastic Common Schema."""
SERVICE = {"service.name": "progress-service", "service.version": version("progress-service")}
LEVELS = ("debug", "info", "warning", "error")
WATCHING = {"operations.healthz", "operations.readyz", "operations.read_metrics"}
"""The endpoints of probes and scrapes, which come every few seconds."""

_REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"00-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-[\da-f]{2}", re.ASCII)
_METHODS = set(HTTPMethod)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What terminals obey, what ends a line, and what cannot be written."""


class Text(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        id_ = facts.current().request_id or "-"
        line = f"{self.formatTime(record)} {record.levelname} {id_} {record.getMessage()}"
        if fault := _fault(record):
            line += f": {fault['error.stack_trace']}"
        return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], line)


class Json(logging.Formatter):
    """A line for programs: a JSON object in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        known = facts.current()
        line = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": SCHEMA,
            "log.logger": record.name,
            "process.pid": record.process,
            **SERVICE,
        }
        ids = {"http.request.id": known.request_id, "trace.id": known.trace_id, "parent.id": known.parent_id}
        line |= {name: id_ for name, id_ in ids.items() if id_}
        return json.dumps(line | getattr(record, "fields", {}) | _fault(record))


FORMATS: dict[str, type[logging.Formatter]] = {"text": Text, "json": Json}


def _fault(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields about a line's exception; none if there is no exception."""
    error = record.exc_info and record.exc_info[1]
    if not error:
        return {}
    return {"error.type": type(error).__name__, "error.stack_trace": "; caused by ".join(_trace(error))}


def _trace(error: BaseException | None) -> Iterator[str]:
    """Describe an exception and each of its causes: its type, and the lines of code that it went through."""
    while error is not None:
        frames = ((Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__))
        yield f"{type(error).__name__} at " + " > ".join(
            f"{file.parent.name}/{file.name}:{line}" for file, line in frames
        )
        error = error.__cause__ or error.__context__


def formatter(config: Mapping[str, Any]) -> logging.Formatter:
    """Return the formatter that the settings name; without a setting, for people on a terminal, else for programs."""
    given = config["LOG_FORMAT"].lower() or ("text" if sys.stderr.isatty() else "json")
    if given not in FORMATS:
        raise ConfigurationError(f"PROGRESS_LOG_FORMAT must be {' or '.join(FORMATS)}, not {given!r}.")
    return FORMATS[given]()


def level(config: Mapping[str, Any]) -> str:
    """Return the name of the least level that the settings let through."""
    given: str = config["LOG_LEVEL"].lower()
    if given not in LEVELS:
        raise ConfigurationError(f"PROGRESS_LOG_LEVEL must be {', '.join(LEVELS)}, not {given!r}.")
    return given.upper()


class Gunicorn(glogging.Logger):  # type: ignore[misc]
    """gunicorn's own lines, in the form of the application's."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        (application,) = logging.getLogger("progress_service").handlers
        for handler in self.error_log.handlers:
            handler.setFormatter(application.formatter)
        self.error_log.addFilter(_quote_nobody)


def _quote_nobody(record: logging.LogRecord) -> bool:
    """Take out of a line of gunicorn's what it quotes of requests that it cannot read, or that were not answered."""
    if str(record.msg).startswith("Invalid request"):
        kind = type(sys.exception()).__name__
        record.msg, record.fields = f"Invalid request: {kind}", {"error.type": kind}
    elif record.exc_info:
        record.msg, record.args = str(record.msg).partition(" %s")[0], ()
    return True


def register(app: Flask) -> None:
    """Give every request an id, log the end of the request, and send the id with the answer."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(app.config))
    app.logger.handlers = [handler]
    app.logger.propagate = False
    app.logger.setLevel(level(app.config))
    logging.basicConfig(handlers=[handler])  # libraries, unless the process has decided where they write
    logging.captureWarnings(True)
    app.before_request(_begin)
    app.after_request(_tell)
    app.teardown_request(lambda _: facts.end())


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    parent = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    trace_id, parent_id = parent.groups() if parent else ("", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
    facts.begin(Facts(request_id, trace_id, parent_id, began=time.perf_counter()))


def _tell(response: Response) -> Response:
    known = facts.current()
    response.headers["X-Request-ID"] = known.request_id
    lasted = time.perf_counter() - known.began
    method = request.method if request.method in _METHODS else "_OTHER"  # any other word may be somebody's name
    rule = request.url_rule.rule if request.url_rule else "unmatched"
    fields: dict[str, Any] = {
        "http.request.method": method,
        "http.route": rule,
        "http.response.status_code": response.status_code,
        "event.duration": round(1e9 * lasted),
        "progress.database.statements": known.spent.statements,
        "progress.database.duration": round(1e9 * known.spent.seconds),
        "progress.database.replica": known.is_from_replica,
        "progress.retries": known.spent.retries.total(),
        "progress.replayed": "Idempotency-Replayed" in response.headers,
    }
    if known.spent.group:
        fields["progress.group"] = known.spent.group
    if known.role:
        fields["user.roles"] = [known.role]
    if known.problem:
        fields["error.code"] = known.problem
    if known.cause:
        fields["error.type"] = known.cause
    current_app.logger.log(
        logging.DEBUG if request.endpoint in WATCHING else logging.INFO,
        "%s %s %d %.1fms",
        *(method, rule, response.status_code, 1000 * lasted),
        extra={"fields": fields},
    )
    return response

"""Every refusal and fault as a problem document (RFC 9457), made in one place."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

import orjson
from flask import Flask, Response, current_app, g
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError
from werkzeug.exceptions import HTTPException, InternalServerError

SLUGS = {
    400: "malformed-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "payload-too-large",
    415: "unsupported-media-type",
    422: "validation-failed",
    500: "internal-error",
    503: "unavailable",
}
"""The slug of a problem that is named by its status alone."""


class Fault(NamedTuple):
    """What is wrong at one place of a request, by its JSON pointer."""

    pointer: str
    detail: str


class Problem(HTTPException):
    """A refusal that the caller can understand: its status, slug, what is wrong and where."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        slug: str | None = None,
        faults: Iterable[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = status
        self.slug = slug or SLUGS[status]
        self.faults = tuple(faults)
        self.headers = headers or {}

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), *self.headers.items()]


def malformed(detail: str, faults: Iterable[Fault] = ()) -> Problem:
    return Problem(400, detail, faults=faults)


def forbidden(detail: str, *, slug: str | None = None, faults: Iterable[Fault] = ()) -> Problem:
    return Problem(403, detail, slug=slug, faults=faults)


def not_found(detail: str = "There is nothing here.", faults: Iterable[Fault] = ()) -> Problem:
    return Problem(404, detail, faults=faults)


def invalid(faults: Iterable[Fault], *, slug: str = "validation-failed") -> Problem:
    return Problem(422, "The request is understood, but parts of it are wrong.", slug=slug, faults=faults)


def unavailable(seconds: int = 1, detail: str = "The service cannot answer right now; try again.") -> Problem:
    return Problem(503, detail, headers={"Retry-After": str(max(1, seconds))})


def register(app: Flask) -> None:
    """Render every exception that a request can end with."""
    app.register_error_handler(HTTPException, render)
    app.register_error_handler(DBAPIError, render_database_error)
    app.register_error_handler(TimeoutError, render_database_error)
    app.register_error_handler(Exception, render_unexpected)


def render(error: HTTPException) -> Response:
    """Answer with the problem document of an exception, keeping the exception's own headers."""
    response = Response(headers=error.get_response().headers, status=error.code)
    response.headers.remove("Content-Length")
    response.content_type = "application/problem+json"
    response.set_data(orjson.dumps(document(error)))
    return response


def document(error: HTTPException) -> dict[str, Any]:
    status = error.code or 500
    slug = error.slug if isinstance(error, Problem) else SLUGS.get(status) or _slugify(status)
    problem = {
        "type": f"urn:progress-service:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": error.description or HTTPStatus(status).description,
        "requestId": g.request_id,
    }
    if isinstance(error, Problem) and error.faults:
        problem["errors"] = [fault._asdict() for fault in error.faults]
    return problem


def render_database_error(error: DBAPIError | TimeoutError) -> Response:
    """Answer 503 where the database is away, busy or too slow, 500 where the fault is ours."""
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if is_lost or isinstance(error, OperationalError | InterfaceError | TimeoutError):
        current_app.logger.warning("database unavailable: %s", type(error.__cause__ or error).__name__)
        return render(unavailable())
    return render_unexpected(error)


def render_unexpected(error: Exception) -> Response:
    """Answer 500 and log what happened where, but not what the exception says: it may quote somebody's data."""
    current_app.logger.error("unexpected error: %s", "; caused by ".join(_trace(error)))
    return render(InternalServerError())


def _trace(error: BaseException | None) -> Iterator[str]:
    """Tell of which kind an exception and each of its causes is, and which lines of code it went through."""
    while error is not None:
        frames = ((Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__))
        yield f"{type(error).__name__} at " + " > ".join(
            f"{file.parent.name}/{file.name}:{line}" for file, line in frames
        )
        error = error.__cause__ or error.__context__


def _slugify(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "-")

"""Refusals and faults as problem documents (RFC 9457)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import zip_longest
from typing import Annotated, Any, NamedTuple, TypeVar

from flask import Flask, Response, current_app
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError
from werkzeug.exceptions import HTTPException, InternalServerError

from progress_service import facts
from progress_service.store.database import Outdated
from progress_service.store.publishing import ContentElsewhere
from progress_service.store.recorder import (
    CriteriaNotMet,
    NoContent,
    NoRecord,
    NotEnrolled,
    Refused,
    UnknownContent,
    UnknownModule,
)
from progress_service.web.serialization import Document, encode

Found = TypeVar("Found")

PROBLEM_TYPES: list["ProblemType"] = []
"""All types of problems, by status. The first type of a status also stands for refusals of Flask with that status."""


@dataclass(frozen=True)
class ProblemType:
    """A type of problem: the end of its URI, its status, and when a request is answered with it."""

    slug: str
    status: int
    when: str
    detail: str | None = None
    """The sentence for callers, unless a problem has its own."""

    def __post_init__(self) -> None:
        PROBLEM_TYPES.append(self)


NO_MODULE = "There is no such module."
_PARTLY_WRONG = "The request is understood, but parts of it are wrong."

MALFORMED_REQUEST = ProblemType(
    "malformed-request", 400, "no JSON object, an unknown, repeated or wrong query parameter, a bad cursor or key"
)
UNAUTHORIZED = ProblemType("unauthorized", 401, "no valid token")
FORBIDDEN = ProblemType("forbidden", 403, "the caller may not see or change this")
NOT_ENROLLED = ProblemType(
    "not-enrolled", 403, "the learner is not enrolled, and updates enroll nobody", "The learner must be enrolled first."
)
NOT_FOUND = ProblemType("not-found", 404, "nothing is there, or another learner's record", "There is nothing here.")
METHOD_NOT_ALLOWED = ProblemType("method-not-allowed", 405, "the path has other methods, which `Allow` lists")
GONE = ProblemType(
    "gone", 410, "the cursor is too old", "Changes behind this cursor may be gone: read all anew, without it."
)
COMPLETION_CRITERIA_NOT_MET = ProblemType(
    "completion-criteria-not-met", 409, "the best score does not reach the passing score"
)
CONTENT_BELONGS_ELSEWHERE = ProblemType("content-belongs-elsewhere", 409, "a content is current in another module")
PAYLOAD_TOO_LARGE = ProblemType("payload-too-large", 413, "the body is over 1 MiB")
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type", 415, "the body is not `application/json` in UTF-8, or is coded, as by gzip"
)
VALIDATION_FAILED = ProblemType(
    "validation-failed", 422, "every wrong or unknown field is named, and so is every unknown content", _PARTLY_WRONG
)
UNKNOWN_CONTENT = ProblemType(
    "unknown-content", 422, "contents are not in the catalog, and nothing else is wrong", _PARTLY_WRONG
)
IDEMPOTENCY_KEY_REUSED = ProblemType(
    "idempotency-key-reused", 422, "the key is another request's", "The Idempotency-Key belongs to another request."
)
INTERNAL_ERROR = ProblemType("internal-error", 500, "a fault of the service")
UNAVAILABLE = ProblemType(
    "unavailable", 503, "the database is away or too busy; try again", "The service cannot answer right now; try again."
)


class Fault(Document):
    """A fault of a request, and its place."""

    pointer: Annotated[
        str,
        Meta(
            description="Into the body (RFC 6901), or `/` and the name of a parameter.",
            extra_json_schema={"format": "json-pointer"},
        ),
    ]
    detail: str


class ProblemDocument(Document):
    """A refusal or a fault (RFC 9457)."""

    type: Annotated[
        str, Meta(description="`urn:progress-service:problem:` and the slug.", extra_json_schema={"format": "uri"})
    ]
    title: str
    status: int
    detail: str
    request_id: Annotated[str, Meta(description="The value of `X-Request-ID`.")]
    errors: Annotated[tuple[Fault, ...] | UnsetType, Meta(description="The faults of the request.")] = UNSET


class Problem(HTTPException):
    """A refusal: its type, a sentence for the caller, and the faults of the request."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str | None = None,
        *,
        faults: Iterable[Fault] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail or kind.detail)
        self.kind = kind
        self.code = kind.status
        self.faults = tuple(faults)
        self.headers = headers or {}

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), *self.headers.items()]


def unavailable(seconds: int = 1, detail: str | None = None) -> Problem:
    """Return the problem 503, to be tried again after some seconds."""
    return Problem(UNAVAILABLE, detail, headers={"Retry-After": str(max(1, seconds))})


def or_not_found(found: Found | None, detail: str | None = None) -> Found:
    """Return what was found, and raise 404 if that is nothing."""
    if found is None:
        raise Problem(NOT_FOUND, detail)
    return found


class Refusal(NamedTuple):
    """The problem that callers get for an exception of the rules."""

    kind: ProblemType
    detail: str
    """The sentence about each refused item; about the request, if there is no `field`. `{}` stands for a name."""
    field: str = ""
    """The pointer to the refused field within an item."""


REFUSALS: dict[type[Exception], Refusal] = {
    UnknownContent: Refusal(UNKNOWN_CONTENT, "The content is not in the catalog.", "/contentId"),
    NotEnrolled: Refusal(NOT_ENROLLED, "The learner is not enrolled in the content's module.", "/contentId"),
    ContentElsewhere: Refusal(CONTENT_BELONGS_ELSEWHERE, "The content is current in module {}.", "/id"),
    UnknownModule: Refusal(NOT_FOUND, NO_MODULE),
    NoContent: Refusal(NOT_FOUND, "The module has no such content."),
    NoRecord: Refusal(NOT_FOUND, "There is nothing here."),
    CriteriaNotMet: Refusal(COMPLETION_CRITERIA_NOT_MET, "The best score does not reach the content's passing score."),
}


@contextmanager
def refused_at(pointer: str = "") -> Iterator[None]:
    """Raise the problem for a refusal of the rules; in the pointer to an item, `{}` stands for the item's index."""
    try:
        yield
    except tuple(REFUSALS) as refused:
        kind, detail, field = REFUSALS[type(refused)]
        if isinstance(refused, Refused) and field:
            faults = [Fault(pointer.format(place) + field, detail) for place, detail in details(refused)]
            raise Problem(kind, kind.detail or faults[0].detail, faults=faults) from refused
        raise Problem(kind, detail) from refused


def details(refused: Refused) -> Iterator[tuple[int, str]]:
    """Yield the place of each refused item, and the sentence about it."""
    detail = REFUSALS[type(refused)].detail
    for place, name in zip_longest(refused.places, refused.names):
        yield place, detail.format(name)


def register(app: Flask) -> None:
    """Render every exception that a request can end with."""
    app.register_error_handler(HTTPException, render)
    app.register_error_handler(DBAPIError, render_database_error)
    app.register_error_handler(TimeoutError, render_database_error)
    app.register_error_handler(Outdated, render_database_error)
    app.register_error_handler(Exception, render_unexpected)


def render(error: HTTPException, cause: BaseException | None = None) -> Response:
    """Answer with the problem document of an exception, and keep the exception's own headers; note what led to it."""
    cause = cause or error.__cause__
    known = facts.current()
    known.problem, known.cause = slug(error), type(cause).__name__ if cause else ""
    response = Response(headers=error.get_response().headers, status=error.code)
    response.headers.remove("Content-Length")
    response.content_type = "application/problem+json"
    response.set_data(encode(document(error)))
    return response


def document(error: HTTPException) -> ProblemDocument:
    status, name = error.code or 500, slug(error)
    faults = error.faults if isinstance(error, Problem) else ()
    return ProblemDocument(
        type=f"urn:progress-service:problem:{name}",
        title=name.replace("-", " ").capitalize(),
        status=status,
        detail=error.description or HTTPStatus(status).description,
        request_id=facts.current().request_id,
        errors=faults or UNSET,
    )


def render_database_error(error: DBAPIError | TimeoutError | Outdated) -> Response:
    """Answer 503 if the database is away, busy or too slow, and 500 for a fault of this service."""
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if is_lost or isinstance(error, OperationalError | InterfaceError | TimeoutError | Outdated):
        cause = error.__cause__ or error
        current_app.logger.warning("database unavailable: %s", type(cause).__name__)
        return render(unavailable(), cause)
    return render_unexpected(error)


def render_unexpected(error: Exception) -> Response:
    """Answer 500, and log the fault."""
    current_app.logger.error("unexpected error", exc_info=error)
    return render(InternalServerError(), error)


def slug(error: HTTPException) -> str:
    """Return the slug of a problem; for an exception of Flask, of the first type with its status."""
    if isinstance(error, Problem):
        return error.kind.slug
    status = error.code or 500
    slugs = (kind.slug for kind in PROBLEM_TYPES if kind.status == status)
    return next(slugs, HTTPStatus(status).phrase.lower().replace(" ", "-"))

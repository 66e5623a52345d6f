"""What every operation does before and after its view, in the contract's order of refusals.

The token, the role, the shape of the request, whose data it is; then the view, in one transaction; then the answer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Any, NamedTuple

from flask import Response, current_app, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from marshmallow import Schema, ValidationError
from sqlalchemy import Connection
from werkzeug.datastructures import MIMEAccept

from progress_service import auth, idempotency, storage
from progress_service.auth import Caller, Policy, Reach
from progress_service.errors import (
    MALFORMED_REQUEST,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    VALIDATION_FAILED,
    Fault,
    Problem,
    ProblemType,
)
from progress_service.serialization import encode
from progress_service.validation import (
    MOST_FAULTS,
    Identifier,
    ModuleId,
    StrictSchema,
    UserId,
    faults_of,
    parse_json,
)


@dataclass(slots=True)
class Call:
    """One authorized call: who makes it, with what, when, and the transaction that it runs in."""

    connection: Connection
    caller: Caller
    reach: Reach
    now: datetime
    body: Any
    query: Mapping[str, Any]
    wants_text: bool

    def reaches(self, learner: str) -> bool:
        """Tell whether a learner is within the caller's reach."""
        return Reach.ANY in self.reach or learner == self.caller.id


class Answer(NamedTuple):
    """What a view answers."""

    document: Mapping[str, Any] | None
    status: int = 200
    learner: str | None = None
    """Whom the document names, so that erasing them finds it where it is stored for repeats; None if several people."""


class Stream(NamedTuple):
    """What a view answers bit by bit: its transaction lasts as long."""

    text: Iterator[str]
    content_type: str


NOTHING = Answer(None, 204)
PATH_PARTS = {
    "user_id": UserId(data_key="userId"),
    "module_id": ModuleId(data_key="moduleId"),
    "record_id": Identifier(data_key="recordId"),
}
PAGING = ("limit", "cursor")
"""The query parameters of what is read page by page."""
PLAIN_CODINGS = {"Content-Encoding": {"", "identity"}, "Transfer-Encoding": {"", "chunked", "identity"}}
"""The codings of bodies that are what they say: gunicorn does not decode others, but passes them on."""

View = Callable[..., Answer | Stream]
BodySchema = Schema | Callable[[Caller], Schema]


@dataclass(frozen=True, slots=True)
class Operation:
    """What is declared of a view: who may call it, what it takes, and what it answers."""

    policy: Policy
    body: BodySchema | None
    body_required: bool
    query: Schema
    answers: Mapping[int, Schema | None]
    text: str | None
    problems: Collection[ProblemType]


class NoQuery(StrictSchema):
    """An operation without query parameters."""


def endpoint(
    policy: Policy,
    *,
    body: BodySchema | None = None,
    body_required: bool = True,
    query: Schema | None = None,
    answers: Mapping[int, Schema | None],
    text: str | None = None,
    problems: Collection[ProblemType] = (),
    check_whose: Callable[[Call], None] | None = None,
    look_further: Callable[[Call], list[Fault]] | None = None,
    unhurried: bool = False,
    single_statement: bool = False,
) -> Callable[[View], Callable[..., Response]]:
    """Turn a view of a `Call` into a guarded route.

    GET runs on one snapshot of the database; everything else runs in one transaction that is committed before the
    answer is given, and may run again where it loses a race. `text` is the type of what a view may `Stream` instead,
    `problems` are the refusals of its own. `check_whose` refuses a body that is not the caller's to send; no
    answer is replayed before. `look_further` names what is wrong with the fields of a right shape where others are of a
    wrong one, so that all of it is told at once. `unhurried` views may take longer than others; the answers of those of
    a `single_statement` are made of one, and need no transaction.
    """
    operation = Operation(policy, body, body_required, query or NoQuery(), answers, text, problems)

    def decorate(view: View) -> Callable[..., Response]:
        @wraps(view)
        def guarded(**path: str) -> Response:
            caller = auth.identify()
            reach = auth.admit(caller, policy)
            now = datetime.now(UTC)
            is_read = request.method in ("GET", "HEAD")
            if is_read and path.get("user_id") == "me" and policy.student is Reach.OWN:
                path["user_id"] = caller.id
            _check_path(path)
            wants_text = operation.text is not None and _prefers(operation.text)
            parameters = _load_query(operation.query, is_whole=wants_text)

            def call(connection: Connection, body: Any) -> Call:
                return Call(connection, caller, reach, now, body, parameters, wants_text)

            name = idempotency.name_of(request)
            try:
                loaded = _load_body(operation, caller)
            except ValidationError as error:
                faults, valid = faults_of(error), error.valid_data
                if look_further:
                    faults += storage.read(
                        lambda connection: look_further(call(connection, valid)), single_statement=True
                    )
                raise Problem(VALIDATION_FAILED, faults=faults[:MOST_FAULTS]) from error
            key = name and idempotency.Key.of(request, caller, name)

            def work(connection: Connection) -> Response:
                if "user_id" in path or "module_id" in path:
                    learner, module = path.get("user_id"), path.get("module_id")
                    auth.authorize(connection, caller, reach, learner=learner, module=module)
                this = call(connection, loaded)
                if check_whose:
                    check_whose(this)
                replayed = key and idempotency.replay(connection, key, now)
                if replayed:
                    if replayed.learner and not this.reaches(replayed.learner):
                        raise Problem(NOT_FOUND)
                    return replayed.response
                answer = view(this, **path)
                response = stream(answer, connection) if isinstance(answer, Stream) else respond(answer)
                if operation.text:
                    response.vary.add("Accept")
                if key and isinstance(answer, Answer):
                    idempotency.keep(connection, key, response, answer.learner, now)
                return response

            if is_read and operation.text:
                return _end_with(*storage.read_on(work))
            if is_read:
                return storage.read(work, unhurried=unhurried, single_statement=single_statement)
            return storage.write(work, unhurried=unhurried)

        guarded.operation = operation  # type: ignore[attr-defined]  # read by the OpenAPI document, and by the test of every route's policy
        return guarded

    return decorate


def respond(answer: Answer) -> Response:
    """Render an answer as JSON, or as nothing where there is no document."""
    if answer.document is None:
        response = Response(status=answer.status)
        del response.headers["Content-Type"]
        return response
    return Response(encode(answer.document), answer.status, content_type="application/json")


def stream(answer: Stream, connection: Connection) -> Response:
    """Answer with text as it is made, on the view's connection."""
    storage.unhurry(connection)
    return Response(answer.text, content_type=answer.content_type)


def _end_with(response: Response, end: Callable[[], None]) -> Response:
    """Let what a response reads end with its last piece, or when it is closed before."""

    def pieces() -> Iterator[bytes]:
        try:
            yield from response.iter_encoded()
        finally:
            end()

    if not response.is_streamed:
        end()
        return response
    ending = Response(pieces(), headers=response.headers)
    ending.call_on_close(end)  # also where no piece has been taken
    return ending


def _check_path(path: Mapping[str, str]) -> None:
    """Refuse a path with an identifier that nobody and nothing can have."""
    faults = []
    for name, value in path.items():
        try:
            PATH_PARTS[name].deserialize(value)
        except ValidationError as error:
            faults += [Fault(f"/{PATH_PARTS[name].data_key}", detail) for detail in error.messages]
    if faults:
        raise Problem(NOT_FOUND, "There can be nothing here: the path has no proper identifier.", faults=faults)


def _prefers(text: str) -> bool:
    """Tell whether the caller would rather have this type of text than JSON, whatever parameters they give it."""
    ranges = [(item.partition(";")[0].strip(), quality) for item, quality in request.accept_mimetypes]
    return MIMEAccept(ranges).best_match(["application/json", text]) == text


def _load_query(schema: Schema, *, is_whole: bool) -> Any:
    """Load the query parameters; what is answered whole has no pages."""
    faults = [Fault(f"/{name}", "Is given more than once.") for name, given in request.args.lists() if len(given) > 1]
    if is_whole:
        faults += [
            Fault(f"/{name}", "A table is whole: it has no limit and no cursor.")
            for name in PAGING
            if name in request.args
        ]
    loaded = None
    try:
        loaded = schema.load(request.args.to_dict())
    except ValidationError as error:
        faults += faults_of(error)
    if faults:
        raise Problem(MALFORMED_REQUEST, "A query parameter is unknown or wrong.", faults=faults)
    return loaded


def _load_body(operation: Operation, caller: Caller) -> Any:
    """Load the body, if the operation has one; raises ValidationError for what is not of its shape."""
    if operation.body is None:
        return None
    schema = operation.body if isinstance(operation.body, Schema) else operation.body(caller)
    return schema.load(_read_object(operation.body_required))


def _read_object(required: bool) -> dict[str, Any]:
    """Read the body as a JSON object, or as an empty one where there is no body and none is required."""
    for name, plain in PLAIN_CODINGS.items():
        if {coding.strip().lower() for coding in request.headers.get(name, "").split(",")} - plain:
            raise Problem(
                UNSUPPORTED_MEDIA_TYPE,
                f"The body must be sent as it is, without a {name}.",
                headers={"Accept-Encoding": "identity"},
            )
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = limit + 1  # a longer body without a Content-Length is cut there, and not refused
    try:
        body = request.get_data()
    except ParseException as error:
        raise Problem(MALFORMED_REQUEST, "The body is not sent in chunks as it says.") from error
    if len(body) > limit:
        raise Problem(PAYLOAD_TOO_LARGE, f"The body must have at most {limit} bytes.")
    if request.content_length not in (None, len(body)):
        raise Problem(MALFORMED_REQUEST, "The body is shorter than it says.")
    if not body and not required:
        return {}
    if request.mimetype != "application/json" or request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise Problem(UNSUPPORTED_MEDIA_TYPE, "The body must be application/json in UTF-8.")
    try:
        value = parse_json(body)
    except ValueError as error:
        raise Problem(MALFORMED_REQUEST, "The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise Problem(MALFORMED_REQUEST, "The body must be a JSON object.")
    return value

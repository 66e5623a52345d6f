"""The decorators of the routes, and the way of every request through them.

Under its route each view declares who may call it, and then its body, query, answers and refusals. The decorators only
declare; `handle` does what they declare, in the contract's order of refusals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, wraps
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import flask
from flask import Response, current_app, request
from flask.typing import RouteCallable
from marshmallow import Schema, ValidationError
from sqlalchemy import Connection
from werkzeug.http import quote_header_value

from progress_service import facts
from progress_service.calculations import Actor
from progress_service.store import database, replicas
from progress_service.store.housekeeping import HOUSEKEEPER
from progress_service.store.recorder import Refused
from progress_service.store.together import Together
from progress_service.web import auth, idempotency
from progress_service.web.auth import Caller, Policy, Reach
from progress_service.web.idempotency import Key, Replay
from progress_service.web.problems import NOT_FOUND, VALIDATION_FAILED, Fault, Problem, ProblemType, refused_at
from progress_service.web.requests import check_path, prefers, read_object, read_position, read_query
from progress_service.web.serialization import Document, encode
from progress_service.web.validation import MOST_FAULTS, StrictSchema, faults_of


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a view: the caller, the time, the query, the body and the transaction."""

    caller: Caller
    reach: Reach
    now: datetime
    query: Mapping[str, Any]
    wants_text: bool
    path: Mapping[str, str]
    body: Any
    connection: Connection

    @property
    def actor(self) -> Actor:
        """The caller, as the journal names them."""
        return Actor(self.caller.id, self.caller.role.value)

    @property
    def instructor_id(self) -> str | None:
        """The caller, if they reach only the modules that they teach."""
        return self.caller.id if self.reach is Reach.TAUGHT else None

    def reaches(self, learner: str) -> bool:
        """Tell whether a learner is the caller, or any learner is within reach."""
        return Reach.ANY in self.reach or learner == self.caller.id


class Answer(NamedTuple):
    """An answer: a document, or a status alone."""

    document: Document | None
    status: int = 200
    learner: str | None = None
    """The learner named in the document, so that erasing that learner also deletes the stored copy. None if several."""
    kept: Document | None = None
    """What a repeat gets, if it is another document: a secret is told once."""


class Stream(NamedTuple):
    """A file that is sent in pieces. Its transaction lasts until the last piece."""

    text: Iterator[str]
    content_type: str
    name: str


class Page(NamedTuple):
    """An answer for people: a page in HTML."""

    html: str
    policy: str
    """What a browser may load and run for the page: its Content-Security-Policy."""


NOTHING = Answer(None, 204)
READS = ("GET", "HEAD")
NO_QUERY = StrictSchema()
View = Callable[..., Any]
"""Takes a call and the parts of its path, and returns an `Answer`, a `Page` or a `Stream`; see also `together`."""
OpenView = Callable[[], Response]
Declared = TypeVar("Declared", bound=Callable[..., Any])
BodySchema = Schema | Callable[[Caller], Schema]
AnswerType = type[Document] | dict[str, Any] | None
"""The class of the answer's document, a JSON Schema, or None for an answer without a document."""


def _allow(call: Call) -> None:
    """Every caller who may call the operation may send any body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """The declarations of a view, which the OpenAPI document is made from."""

    policy: Policy | None
    """How far each role reaches; None if the route is open to everybody."""
    answers: Mapping[int, AnswerType]
    content_type: str = "application/json"
    text: str | None = None
    """The type of the text that is streamed: to callers who prefer it, or to all if it is `content_type`."""
    links: Mapping[str, Any] = field(default_factory=dict)
    query: Schema = NO_QUERY
    body: BodySchema | None = None
    body_required: bool = True
    authorize_body: Callable[[Call], None] = _allow
    more_faults: Callable[[Call], list[Fault]] | None = None
    problems: tuple[ProblemType, ...] = ()
    single_statement: bool = False
    from_replica: bool = False
    catalog_timeout: bool = False
    together: bool = False

    @property
    def has_choice(self) -> bool:
        """Whether the caller chooses between the document and the text."""
        return self.text not in (None, self.content_type)


class Blueprint(flask.Blueprint):
    """A Flask blueprint that refuses a route without a policy."""

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: RouteCallable | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        if not hasattr(view_func, "operation"):
            name = getattr(view_func, "__name__", rule)
            raise TypeError(f"{name} declares no policy: put @requires_token(…) or @open_to_all under its route")
        super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)


def requires_token(policy: Policy) -> Callable[[View], Callable[..., Response]]:
    """Guard a view: the caller needs a token with a role of the policy, and is held to the reach of that role."""

    def guard(view: View) -> Callable[..., Response]:
        operation = _operation(view, policy)

        @wraps(view)
        def guarded(**path: str) -> Response:
            response = handle(operation, policy, view, path)
            if request.method not in READS:
                response.call_on_close(current_app.extensions[HOUSEKEEPER].tidy)  # when the answer has been sent
            return response

        vars(guarded)["operation"] = operation
        return guarded

    return guard


def open_to_all(view: OpenView) -> OpenView:
    """Open a view to everybody, with or without a token. The view makes its own response."""
    vars(view)["operation"] = _operation(view, None)
    return view


def takes(
    body: BodySchema,
    *,
    required: bool = True,
    authorize: Callable[[Call], None] = _allow,
    more_faults: Callable[[Call], list[Fault]] | None = None,
) -> Callable[[Declared], Declared]:
    """Declare the schema of a body, or a function that returns it for a caller.

    `authorize` raises a problem if the caller may not send the body. If the schema refuses the body, `more_faults` gets
    its valid part and returns further faults, so that the caller learns of all faults at once.
    """
    return _declare(body=body, body_required=required, authorize_body=authorize, more_faults=more_faults)


def takes_query(query: Schema) -> Callable[[Declared], Declared]:
    """Declare the query parameters; a view without this declaration takes none."""
    return _declare(query=query)


def answers(
    document: AnswerType, *statuses: int, content_type: str = "application/json", or_text: str | None = None
) -> Callable[[Declared], Declared]:
    """Declare the document of the answers with these statuses, and the type of text that may be streamed instead."""
    return _declare(answers=dict.fromkeys(statuses, document), content_type=content_type, text=or_text)


def streams(text: str) -> Callable[[Declared], Declared]:
    """Declare that every answer is streamed as text of this type."""
    return _declare(answers={200: {"type": "string"}}, content_type=text, text=text)


def refuses(*problems: ProblemType) -> Callable[[Declared], Declared]:
    """Declare the problems that no other declaration implies."""
    return _declare(problems=problems)


def leads_to(links: Mapping[str, Any]) -> Callable[[Declared], Declared]:
    """Declare the operations that the answer leads to: OpenAPI's link objects, by operation id."""
    return _declare(links=links)


def single_statement(view: Declared) -> Declared:
    """Declare that a view reads by a single statement, which is a snapshot without a transaction."""
    return _declare(single_statement=True)(view)


def from_replica(view: Declared) -> Declared:
    """Declare that a replica may answer, which may be behind; text that is streamed is always the primary's."""
    return _declare(from_replica=True)(view)


def catalog_timeout(view: Declared) -> Declared:
    """Declare that the statements of a view may take as long as those of a catalog change."""
    return _declare(catalog_timeout=True)(view)


def together(view: Declared) -> Declared:
    """Declare that a view takes several calls and returns an answer for each, or raises `Refused` with their places.

    Requests to it that arrive at the same time share a transaction (see `store.together`).
    """
    return _declare(together=True)(view)


def _declare(**declared: Any) -> Callable[[Declared], Declared]:
    def declare(view: Declared) -> Declared:
        if hasattr(view, "operation"):
            raise TypeError(f"{view.__name__} is guarded already: put its guard above its other decorators")
        vars(view).setdefault("declared", {}).update(declared)
        return view

    return declare


def _operation(view: Callable[..., Any], policy: Policy | None) -> Operation:
    return Operation(policy, **vars(view).pop("declared", {}))


def handle(operation: Operation, policy: Policy, view: View, path: dict[str, str]) -> Response:
    """Answer a request; the order of the lines is the order of refusals.

    GET reads a snapshot of the database. The other methods run in a transaction, which is committed before the answer
    is sent. If it loses a race, `work` runs again.
    """
    caller = auth.identify()  # 401
    facts.current().role = caller.role
    reach = auth.admit(caller, policy)  # 403: the role
    is_read = request.method in READS
    if is_read and path.get("user_id") == "me" and policy.student is Reach.OWN:
        path["user_id"] = caller.id
    check_path(path)  # 404
    wants_text = operation.text is not None and (not operation.has_choice or prefers(operation.text))
    query = read_query(operation.query, is_paged=not wants_text)  # 400
    position = read_position() if operation.from_replica else None  # 400
    now = datetime.now(UTC)
    call_with = partial(Call, caller, reach, now, query, wants_text, path)
    name = idempotency.name_of(request)  # 400
    body = _read_body(operation, caller, call_with)  # 400, 413, 415, 422
    key = idempotency.Key.of(request, caller, name) if name else None
    if operation.together:
        with refused_at():
            return _together(operation, view).write(Asked(partial(call_with, body), key))

    def work(connection: Connection) -> Response:
        call = call_with(body, connection)
        if "user_id" in path or "module_id" in path:  # 403: whose data
            auth.authorize(connection, caller, reach, learner=path.get("user_id"), module=path.get("module_id"))
        operation.authorize_body(call)  # 403
        if key and (found := idempotency.replay(connection, [key], now).get(key)):  # 422
            return replayed(call, found)
        answer = view(call, **path)  # 403, 404, 409, 422: the content
        response = stream(answer, connection) if isinstance(answer, Stream) else respond(answer)
        if operation.has_choice:
            response.vary.add("Accept")
        if key and isinstance(answer, Answer):
            repeat = respond(answer._replace(document=answer.kept)) if answer.kept else response
            idempotency.keep(connection, [(key, repeat, answer.learner)], now)
        return response

    if not is_read:
        return database.write(work, catalog_timeout=operation.catalog_timeout)
    if wants_text:
        return _end_with(*database.read_on(work))
    if operation.from_replica:
        return replicas.read(work, single_statement=operation.single_statement, position=position)
    return database.read(work, single_statement=operation.single_statement)


class Asked(NamedTuple):
    """A request that is read: its call, which lacks a connection, and its key."""

    call: Callable[[Connection], Call]
    key: Key | None

    @property
    def name(self) -> tuple[str, str] | None:
        """The name of the key, if there is one: repeats never share a transaction."""
        return self.key and self.key.name


def _together(operation: Operation, view: View) -> Together[Asked, Response]:
    """Return the application's queue for the requests to a view."""
    queues: dict[View, Together[Asked, Response]] = current_app.extensions.setdefault("together", {})
    if view not in queues:
        queues.setdefault(view, Together(partial(_answer_all, operation, view), attrgetter("name")))
    return queues[view]


def _answer_all(
    operation: Operation, view: View, connection: Connection, *, items: Sequence[Asked]
) -> list[Response | Exception]:
    """Answer requests in one transaction, in the same order of refusals as `handle`."""
    now, outcomes = datetime.now(UTC), dict[int, Response | Exception]()
    calls = [asked.call(connection) for asked in items]
    for place, call in enumerate(calls):
        with _noting(outcomes, place):
            operation.authorize_body(call)  # 403
    keys = [asked.key for place, asked in enumerate(items) if asked.key and place not in outcomes]
    found = idempotency.replay(connection, keys, now)
    for place, asked in enumerate(items):
        if asked.key in found:
            with _noting(outcomes, place):
                outcomes[place] = replayed(calls[place], found[asked.key])  # 422
    places = [place for place in range(len(calls)) if place not in outcomes]
    try:
        answered = view([calls[place] for place in places]) if places else []  # 403, 404, 409, 422: the content
    except Refused as refused:
        raise type(refused)([places[place] for place in refused.places]) from refused
    kept = []
    for place, answer in zip(places, answered, strict=True):
        outcomes[place] = response = respond(answer)
        if key := items[place].key:
            kept.append((key, response, answer.learner))
    idempotency.keep(connection, kept, now)
    return [outcomes[place] for place in range(len(items))]


@contextmanager
def _noting(outcomes: dict[int, Response | Exception], place: int) -> Iterator[None]:
    try:
        yield
    except Problem as problem:
        outcomes[place] = problem


def _read_body(operation: Operation, caller: Caller, call_with: Callable[[Any, Connection], Call]) -> Any:
    """Load the body, if the operation has one; a refusal names all of its faults."""
    if operation.body is None:
        return None
    schema = operation.body if isinstance(operation.body, Schema) else operation.body(caller)
    body = read_object(required=operation.body_required)
    try:
        return schema.load(body)
    except ValidationError as error:
        faults, valid, more_faults = faults_of(error), error.valid_data, operation.more_faults
        if more_faults:
            faults += database.read(lambda connection: more_faults(call_with(valid, connection)), single_statement=True)
        raise Problem(VALIDATION_FAILED, faults=faults[:MOST_FAULTS]) from error


def replayed(call: Call, found: Replay | Problem) -> Response:
    """Answer a repeated request. Raises the problem that was found, and 404 for a learner beyond the caller's reach."""
    if isinstance(found, Problem):
        raise found
    if found.learner and not call.reaches(found.learner):
        raise Problem(NOT_FOUND)
    return found.response


def respond(answer: Answer | Page) -> Response:
    """Render an answer as JSON, without a body if there is no document; or as a page."""
    if isinstance(answer, Page):
        headers = {"Content-Security-Policy": answer.policy}
        return Response(answer.html, headers=headers, content_type="text/html; charset=utf-8")
    if answer.document is None:
        response = Response(status=answer.status)
        del response.headers["Content-Type"]
        return response
    return Response(encode(answer.document), answer.status, content_type="application/json")


def stream(answer: Stream, connection: Connection) -> Response:
    """Answer with text while it is made, on the view's connection."""
    database.allow_catalog_timeout(connection)
    named = quote_header_value(answer.name, allow_token=False)
    headers = {"Content-Disposition": f"attachment; filename={named}"}
    return Response(answer.text, headers=headers, content_type=answer.content_type)


def _end_with(response: Response, end: Callable[[], None]) -> Response:
    """End the transaction of a response with its last piece, or when the response is closed early."""

    def pieces() -> Iterator[bytes]:
        try:
            yield from response.iter_encoded()
        finally:
            end()

    ending = Response(pieces(), headers=response.headers)
    ending.call_on_close(end)  # even if no piece has been read
    return ending

"""The path, query and body of a request are read, and refused if they do not have the declared shape."""

import re
from collections.abc import Mapping
from typing import Any

from flask import current_app, request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from marshmallow import Schema, ValidationError
from werkzeug.datastructures import MIMEAccept

from progress_service.web import problems
from progress_service.web.headers import POSITION
from progress_service.web.problems import Fault, Problem
from progress_service.web.validation import Identifier, ModuleId, UserId, faults_of, parse_json

PATH_PARTS = {
    "user_id": UserId(data_key="userId"),
    "module_id": ModuleId(data_key="moduleId"),
    "content_id": Identifier(data_key="contentId"),
    "record_id": Identifier(data_key="recordId"),
    "webhook_id": Identifier(data_key="webhookId"),
}
PAGING = ("limit", "cursor")
"""The query parameters of an answer with pages."""
PLAIN_CODINGS = {"Content-Encoding": {"", "identity"}, "Transfer-Encoding": {"", "chunked", "identity"}}
"""The codings of a body that needs no decoding; gunicorn passes on all other codings without decoding them."""

_POSITION = re.compile(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", re.ASCII)


def check_path(path: Mapping[str, str]) -> None:
    """Raise 404 for a path with an identifier that is not valid."""
    faults = []
    for name, value in path.items():
        try:
            PATH_PARTS[name].deserialize(value)
        except ValidationError as error:
            faults += [Fault(f"/{PATH_PARTS[name].data_key}", detail) for detail in error.messages]
    if faults:
        raise Problem(problems.NOT_FOUND, "There is nothing here: the path has a wrong identifier.", faults=faults)


def prefers(text: str) -> bool:
    """Tell whether the caller prefers this type of text to JSON; parameters of a type do not matter."""
    ranges = [(item.partition(";")[0].strip(), quality) for item, quality in request.accept_mimetypes]
    return MIMEAccept(ranges).best_match(["application/json", text]) == text


def read_query(schema: Schema, *, is_paged: bool) -> Any:
    """Load the query parameters; an answer without pages refuses the parameters of pages."""
    given = request.args.to_dict()
    faults = [Fault(f"/{name}", "Is given more than once.") for name, values in request.args.lists() if len(values) > 1]
    if not is_paged:
        faults += [
            Fault(f"/{name}", "A table has no pages: it takes no limit and no cursor.")
            for name in PAGING
            if given.pop(name, None) is not None
        ]
    loaded = None
    try:
        loaded = schema.load(given)
    except ValidationError as error:
        faults += faults_of(error)
    if faults:
        raise Problem(problems.MALFORMED_REQUEST, "A query parameter is unknown or wrong.", faults=faults)
    return loaded


def read_position() -> str | None:
    """Return the position that the answer must show. Raises 400 for anything but what the answer of a write has."""
    position = request.headers.get(POSITION)
    if position is not None and not _POSITION.fullmatch(position):
        raise Problem(problems.MALFORMED_REQUEST, f"The {POSITION} must be that of the answer to a write.")
    return position


def read_object(*, required: bool) -> dict[str, Any]:
    """Read the body as a JSON object. A missing body that is not required is an empty object."""
    for name, plain in PLAIN_CODINGS.items():
        if {coding.strip().lower() for coding in request.headers.get(name, "").split(",")} - plain:
            detail = f"The body must be sent as it is, without a {name}."
            raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, detail, headers={"Accept-Encoding": "identity"})
    limit = current_app.config["MAX_CONTENT_LENGTH"]
    request.max_content_length = limit + 1  # Werkzeug cuts a longer body without a Content-Length there
    try:
        body = request.get_data()
    except ParseException as error:
        raise Problem(problems.MALFORMED_REQUEST, "The chunks of the body are malformed.") from error
    if len(body) > limit:
        raise Problem(problems.PAYLOAD_TOO_LARGE, f"The body must have at most {limit} bytes.")
    if request.content_length not in (None, len(body)):
        raise Problem(problems.MALFORMED_REQUEST, "The body is shorter than its Content-Length.")
    if not body and not required:
        return {}
    if request.mimetype != "application/json" or request.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise Problem(problems.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json in UTF-8.")
    try:
        value = parse_json(body)
    except ValueError as error:
        raise Problem(problems.MALFORMED_REQUEST, "The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise Problem(problems.MALFORMED_REQUEST, "The body must be a JSON object.")
    return value

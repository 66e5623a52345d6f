"""The texts and tables of the OpenAPI document that no route declares."""

from typing import Any

from progress_service.web.auth import ANY, OWN, TAUGHT, Role
from progress_service.web.headers import POSITION

Json = dict[str, Any]

INTRODUCTION = """\
Keeps each learner's progress in every content of every module, and adds it up.

- **Numbers** mean the decimal that was written; numeric strings and booleans are not numbers. `null` is not a value of
  an update: leave the field out. Derived percentages, rates and averages are rounded down to two decimals; they are
  null if there is nobody to count.
- **Bodies** are JSON objects in UTF-8. If an object gives a name twice, the last one counts.
- **Times** are RFC 3339; in answers they are in UTC and end in `Z`.
- **Answers** may get new fields; ignore those that you do not know. The lists in the examples of answers may end early.
- **Examples** name the role of their caller. They are those of the demo that `make run` serves.
- **Refusals** are problem documents (RFC 9457) whose `type` ends in a slug, also for an unknown path (404) and
  for a method that a path does not have (405, with `Allow`). They come in this order: the token, the role, the shape of
  the request, whose data it is, the content of the request.
- **Repeats**: send a POST or PUT with an `Idempotency-Key`, and send it again, with the same key, whenever you got no
  answer, or a 5xx.
"""
REACHES = {OWN: "their own", TAUGHT: "modules they teach", ANY: "any"}
"""The words for the reach of a role."""

BEARER: Json = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "`exp` is required. `sub` is the caller. `role` is one of"
    f" {', '.join(f'`{role}`' for role in Role)}, or several of these in a list or separated by"
    " spaces; the last in this order counts. Both claims may have other names.",
}

DESCRIPTIONS = {200: "Success.", 201: "Success: something was created.", 204: "Success, or nothing was there."}
"""The descriptions of answers, by status."""
ANSWER_HEADERS = {
    "X-Request-ID": "The id of the request, in every answer and log line.",
    "Idempotency-Replayed": "`true` if the answer is that of an earlier request with the same key.",
    POSITION: "Where the write is in the log of PostgreSQL, if the service reads replicas: a read that is sent with it"
    " shows the write.",
    "Retry-After": "Seconds to wait before the next try.",
    "WWW-Authenticate": "The challenge (RFC 6750).",
}
PROBLEM_HEADERS = {401: ["WWW-Authenticate"], 503: ["Retry-After"]}
"""The headers of problems, by status."""

PARAMETERS: dict[str, Json] = {
    "Idempotency-Key": {
        "in": "header",
        "description": "Makes the request take effect once for its caller and key, for 24 hours.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,255}$", "minLength": 1, "maxLength": 255},
    },
    POSITION: {
        "in": "header",
        "description": "The same header of the answer to a write, which this answer must show. Without it, the answer"
        " may be some seconds old if the service reads replicas.",
        "schema": {"type": "string", "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$"},
    },
    "X-Request-ID": {
        "in": "header",
        "description": "The id of the request: 1 to 128 visible ASCII characters. Otherwise the service makes an id.",
        "schema": {"type": "string"},
    },
}

EVENT_HEADERS = {
    "webhook-id": "The id of the change, however often it is sent: who has seen it answers 2xx and does nothing.",
    "webhook-timestamp": "When this try was made, in seconds since 1970.",
    "webhook-signature": "`v1,` and a signature in base64 (Standard Webhooks); several, with spaces, for a day after"
    " the secret was replaced.",
}
EVENT: Json = {
    "operationId": "receiveChange",
    "summary": "A webhook is told of a change.",
    "description": "Changes come one after another, in the order of the feed, each at least once. What is not answered"
    " 2xx within 15 seconds is sent again.",
    "parameters": [
        {"name": name, "in": "header", "required": True, "description": description, "schema": {"type": "string"}}
        for name, description in EVENT_HEADERS.items()
    ],
    "responses": {
        "2XX": {"description": "The change is received."},
        "410": {"description": "The webhook is to be told no more, until it is made active again."},
    },
}
"""What webhooks are sent, but for its body."""

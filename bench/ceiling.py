"""The ceiling: what a route costs that does all but use the database. `gunicorn bench.ceiling:app`.

Plain Flask, with the service's own verification of tokens, schema and encoder, inside the service's own application.
"""

from functools import cache

from flask import Response, request

from progress_service import auth, create_app
from progress_service.endpoint import Answer, respond
from progress_service.progress.schemas import update_schema
from progress_service.validation import parse_json

TIME = "2026-01-31T12:00:00.123456Z"
RECORDED = {
    "progress": {
        "id": "019bf3a5-6a00-7000-8000-000000000000",
        "userId": "student-100",
        "moduleId": "module-10",
        "contentId": "module-10-content-1",
        "status": "in_progress",
        "progressPercentage": 40,
        "timeSpentSeconds": 120,
        "score": None,
        "maxScore": None,
        "scorePercentage": None,
        "position": None,
        "startedAt": TIME,
        "completedAt": None,
        "lastActivityAt": TIME,
    },
    "enrollment": {
        "userId": "student-100",
        "moduleId": "module-10",
        "status": "active",
        "progressPercentage": 2.0,
        "completedContents": 0,
        "totalContents": 40,
        "timeSpentSeconds": 240,
        "enrolledAt": TIME,
        "completedAt": None,
        "lastActivityAt": TIME,
    },
}
"""What an update is answered with, as the clients of the bench get it."""

app = create_app()


@app.post("/ceiling")
def post() -> Response:
    """Verify the token and validate the update."""
    update_schema(auth.identify()).load(parse_json(request.get_data()))
    return respond(Answer(RECORDED))


@app.get("/ceiling/<int:size>")
def get(size: int) -> Response:
    """Verify the token and answer so many bytes."""
    auth.identify()
    return Response(_constant(size), content_type="application/json")


@cache
def _constant(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'

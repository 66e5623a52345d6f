"""The ceiling: the cost of a route that does everything except use the database. `gunicorn bench.ceiling:app`.

Plain Flask, with the service's own schema and encoder, inside the service's own application. Each token is verified in
full, although the service remembers tokens, so that ratios to the ceiling can be compared over versions.
"""

from datetime import UTC, datetime
from functools import cache
from uuid import UUID

from flask import Response, request

from progress_service import create_app
from progress_service.progress.documents import RecordedDocument
from progress_service.progress.schemas import update_schema
from progress_service.web import auth
from progress_service.web.documents import EnrollmentDocument, RecordDocument
from progress_service.web.endpoint import Answer, respond
from progress_service.web.validation import parse_json

TIME = datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
RECORDED = RecordedDocument(
    progress=RecordDocument(
        id=UUID("019bf3a5-6a00-7000-8000-000000000000"),
        user_id="student-100",
        module_id="module-10",
        content_id="module-10-content-1",
        status="in_progress",
        progress_percentage=40,
        time_spent_seconds=120,
        score=None,
        max_score=None,
        score_percentage=None,
        position=None,
        started_at=TIME,
        completed_at=None,
        last_activity_at=TIME,
    ),
    enrollment=EnrollmentDocument(
        user_id="student-100",
        module_id="module-10",
        status="active",
        progress_percentage=2.0,
        completed_contents=0,
        total_contents=40,
        time_spent_seconds=240,
        enrolled_at=TIME,
        completed_at=None,
        last_activity_at=TIME,
    ),
)
"""The answer to an update, as the clients of the bench get it."""

app = create_app()


@app.post("/ceiling")
def post() -> Response:
    """Verify the token and validate the update."""
    update_schema(_verified()).load(parse_json(request.get_data()))
    return respond(Answer(RECORDED))


@app.get("/ceiling/<int:size>")
def get(size: int) -> Response:
    """Verify the token and answer with this number of bytes."""
    _verified()
    return Response(_constant(size), content_type="application/json")


def _verified() -> auth.Caller:
    app.extensions["verified-tokens"].clear()
    return auth.identify()


@cache
def _constant(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'

"""What the tests of learners' progress share: how updates are sent and answers read, and times in them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from werkzeug.test import TestResponse

from tests.callers import Caller

INVALID = (422, "validation-failed")


def send(caller: Caller, content_id: str, **fields: Any) -> dict[str, Any]:
    """Send an update that is accepted, and return the answer's document."""
    response = caller.post("/api/progress", json={"contentId": content_id, **fields})
    assert response.status_code in {200, 201}, response.text
    return dict(response.get_json())


def send_raw(caller: Caller, **written: str) -> TestResponse:
    """Send an update whose fields are JSON as written here, numbers with all their digits."""
    body = ", ".join(f'"{name}": {value}' for name, value in written.items())
    response: TestResponse = caller.post("/api/progress", data=f"{{{body}}}", content_type="application/json")
    return response


def refusal(response: TestResponse) -> tuple[int, str, set[str]]:
    """Return the status of a problem document, its slug, and the JSON pointers of its errors."""
    assert response.content_type == "application/problem+json", response.text
    problem = response.get_json()
    assert problem["status"] == response.status_code
    pointers = {error["pointer"] for error in problem.get("errors", [])}
    return response.status_code, re.split("[/:]", problem["type"])[-1], pointers


def instant(shown: str) -> datetime:
    """Return the time that an answer shows, in UTC."""
    assert shown.endswith("Z")
    return datetime.fromisoformat(shown)


def moment(minute: float = 0) -> str:
    """Show a time of an afternoon long past, so many minutes after noon."""
    return _show(datetime(2024, 1, 5, 12, tzinfo=UTC) + timedelta(minutes=minute))


def from_now(minutes: float) -> str:
    """Show the time so many minutes from now."""
    return _show(datetime.now(UTC) + timedelta(minutes=minutes))


def _show(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")

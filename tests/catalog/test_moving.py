"""A content that moves to another module takes its records along, and every figure of both modules follows."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from progress_service.store import database
from progress_service.store.models import Change
from tests.callers import Caller, read
from tests.conftest import Callers, Publish, Statements, stored

DAY_1, DAY_2, DAY_3 = (f"2026-03-0{day}T08:00:00Z" for day in (2, 3, 4))
COUNTS = ("status", "progressPercentage", "completedContents", "totalContents", "timeSpentSeconds")


class Told(NamedTuple):
    """A line of the journal."""

    type: str
    user_id: str | None
    module_id: str | None
    content_id: str | None
    time: datetime
    data: Any
    role: str


def study(caller: Caller, user_id: str, content_id: str, percentage: float = 100, **fields: Any) -> Any:
    update = {"userId": user_id, "contentId": content_id, "progressPercentage": percentage, **fields}
    response = caller.post("/api/progress", json=update)
    assert response.status_code in {200, 201}, response.text
    return response.get_json()


def enrollment(caller: Caller, user_id: str, module_id: str) -> Any:
    return read(caller, f"/api/enrollments/{user_id}/{module_id}")


def counts(caller: Caller, user_id: str, module_id: str) -> tuple[Any, ...]:
    found = enrollment(caller, user_id, module_id)
    return tuple(found[name] for name in COUNTS)


def records(caller: Caller, user_id: str, module_id: str) -> dict[str, Any]:
    """Return a learner's records in a module, by content."""
    found = read(caller, f"/api/progress/{user_id}/{module_id}")["contents"]
    return {one["contentId"]: one["progress"] for one in found if one["progress"]}


def days(caller: Caller, module_id: str) -> list[tuple[int, ...]]:
    """Return active learners, starts, completions and time of the three days."""
    found = read(caller, f"/api/progress/stats/{module_id}/timeline?from=2026-03-02&to=2026-03-04")["days"]
    names = ("activeLearners", "contentsStarted", "contentsCompleted", "timeSpentSeconds")
    return [tuple(day[name] for name in names) for day in found]


def journal(app: Flask) -> list[Told]:
    names = "type", "user_id", "module_id", "content_id", "time", "data", "by_role"
    with app.app_context():
        found = database.read(
            lambda connection: connection.execute(
                select(*(getattr(Change, name) for name in names)).order_by(Change.id)
            )
        )
        return [Told(*row)._replace(data=json.loads(row.data)) for row in found]


def verified(app: Flask) -> Result:
    return app.test_cli_runner().invoke(args=["progress", "verify"])


def load(app: Flask, tmp_path: Path, modules: Mapping[str, Iterable[str | dict[str, Any]]]) -> Result:
    """Load a file of modules whose contents are ids, or say what is not as usual."""
    document = [
        {
            "id": module_id,
            "title": module_id.title(),
            "instructorIds": ["ines"],
            "contents": [
                {"title": "A title", "type": "video"} | ({"id": one} if isinstance(one, str) else one)
                for one in contents
            ],
        }
        for module_id, contents in modules.items()
    ]
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps({"modules": document}))
    return app.test_cli_runner().invoke(args=["catalog", "load", str(file)])


def test_a_retired_content_that_is_published_in_another_module_moves_there_with_its_records(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes"])
    publish("algebra", ["sets"])
    study(service(), "sam", "genes", 40, timeSpentSeconds=30, occurredAt=DAY_1)
    moved = study(service(), "sam", "cells", 60, timeSpentSeconds=100, position="p", occurredAt=DAY_2)["progress"]
    study(service(), "sam", "sets", 100, timeSpentSeconds=7, occurredAt=DAY_1)
    publish("biology", ["genes"])

    publish("algebra", ["sets", "cells"])

    assert records(service(), "sam", "algebra")["cells"] == moved | {"moduleId": "algebra"}
    assert counts(service(), "sam", "algebra") == ("completed", 80, 1, 2, 107)
    assert enrollment(service(), "sam", "algebra")["lastActivityAt"] == DAY_2
    assert records(service(), "sam", "biology").keys() == {"genes"}
    assert counts(service(), "sam", "biology") == ("active", 40, 0, 1, 30)
    assert enrollment(service(), "sam", "biology")["lastActivityAt"] == DAY_1
    assert read(service(), "/api/progress/sam")["continue"]["contentId"] == "cells"
    assert study(service(), "sam", "cells", 70, timeSpentSeconds=1)["progress"]["id"] == moved["id"]
    assert counts(service(), "sam", "algebra") == ("completed", 85, 1, 2, 108)
    assert verified(app).exit_code == 0


def test_learners_of_the_content_are_enrolled_where_it_arrives_as_of_their_start_on_it(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes", "moss"])
    publish("algebra", ["sets"])
    study(service(), "sam", "cells", occurredAt=DAY_2)
    study(service(), "sam", "genes", occurredAt=DAY_1)
    study(service(), "sam", "moss", occurredAt="2026-02-01T00:00:00Z")
    study(service(), "kim", "cells", occurredAt=DAY_3)
    service().put("/api/enrollments/kim/algebra", json={"enrolledAt": "2026-01-05T00:00:00Z", "status": "paused"})
    study(service(), "guest", "cells", occurredAt=DAY_3)
    service().put("/api/enrollments/guest/biology", json={"counted": False})
    study(service(), "lee", "moss")
    publish("biology", ["moss"])
    known = len(journal(app))

    publish("algebra", ["sets", "cells", "genes"])

    sam, guest, kim = (enrollment(service(), one, "algebra") for one in ("sam", "guest", "kim"))
    assert (sam["enrolledAt"], sam["counted"], sam["status"]) == (DAY_1, True, "active")
    assert (guest["enrolledAt"], guest["counted"]) == (DAY_3, False)
    assert (kim["enrolledAt"], kim["status"]) == ("2026-01-05T00:00:00Z", "paused")
    assert service().get("/api/enrollments/lee/algebra").status_code == 404
    told = [(one.type, one.user_id, one.module_id, one.data, one.role) for one in journal(app)[known:]]
    assert told[0] == ("module.published", None, "algebra", {"created": False}, "admin")
    assert sorted(told[1:]) == [
        ("enrollment.created", "guest", "algebra", {"status": "active", "counted": False}, "admin"),
        ("enrollment.created", "sam", "algebra", {"status": "active", "counted": True}, "admin"),
    ]
    assert {one.user_id: one.time.isoformat()[:10] for one in journal(app)[known + 1 :]} == {
        "guest": "2026-03-04",
        "sam": "2026-03-02",
    }
    assert verified(app).exit_code == 0

    study(service(), "sam", "sets", 10, occurredAt="2026-02-02T00:00:00Z")
    assert enrollment(service(), "sam", "algebra")["enrolledAt"] == "2026-02-02T00:00:00Z"


def test_who_counts_in_a_module_that_contents_come_from_counts_where_they_arrive(
    service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells"])
    publish("botany", ["moss"])
    for content_id in ("cells", "moss"):
        study(service(), "sam", content_id)
    service().put("/api/enrollments/sam/biology", json={"counted": False})
    publish("biology", [])
    publish("botany", [])

    publish("algebra", ["cells", "moss"])

    assert enrollment(service(), "sam", "algebra")["counted"] is True


def test_figures_follow_the_content_and_activity_stays_where_it_was(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes"])
    study(service(), "sam", "cells", 50, timeSpentSeconds=100, score=8, maxScore=10, occurredAt=DAY_1)
    study(service(), "sam", "cells", 100, timeSpentSeconds=20, occurredAt=DAY_2)
    study(service(), "kim", "cells", 30, timeSpentSeconds=5, occurredAt=DAY_2)
    study(service(), "kim", "genes", 10, timeSpentSeconds=3, occurredAt=DAY_3)
    publish("biology", ["genes"])
    assert days(service(), "biology") == [(1, 1, 0, 100), (2, 1, 1, 25), (1, 1, 0, 3)]

    publish("algebra", ["cells"])

    biology, algebra = (read(service(), f"/api/progress/stats/{one}") for one in ("biology", "algebra"))
    assert (biology["learners"]["enrolled"], biology["learners"]["started"]) == (2, 1)
    assert biology["timeSpent"]["totalSeconds"] == 3
    assert [one["stalled"] for one in biology["contents"]] == [1]
    assert (algebra["learners"]["enrolled"], algebra["learners"]["completed"], algebra["learners"]["started"]) == (
        2,
        1,
        2,
    )
    assert algebra["averageProgressPercentage"] == 65
    assert algebra["timeSpent"] == {"totalSeconds": 125, "averageSecondsPerLearner": 62.5}
    (cells,) = algebra["contents"]
    shown = {name: cells[name] for name in ("started", "completed", "averageScorePercentage", "stalled")}
    assert shown == {"started": 2, "completed": 1, "averageScorePercentage": 80, "stalled": 1}
    assert days(service(), "biology") == [(1, 0, 0, 100), (2, 0, 0, 25), (1, 1, 0, 3)]
    assert days(service(), "algebra") == [(0, 1, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0)]
    assert verified(app).exit_code == 0


def test_the_last_content_of_a_module_is_no_content_that_has_moved_away(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes"])
    study(service(), "sam", "genes", 40, occurredAt=DAY_1)
    study(service(), "sam", "cells", 40, occurredAt=DAY_1)
    publish("biology", ["genes"])

    publish("algebra", ["cells"])

    (sam,) = read(service(), "/api/progress/stats/biology/learners")["items"]
    assert (sam["lastContentId"], sam["lastActivityAt"]) == ("genes", DAY_1)
    assert verified(app).exit_code == 0


def test_a_content_that_arrives_completes_what_it_completes_at_that_moment(
    app: Flask, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", {"id": "genes", "passingScore": 50}])
    publish("algebra", ["sets"])
    study(service(), "sam", "cells", occurredAt=DAY_1)
    study(service(), "kim", "genes", 100, score=4, maxScore=10, occurredAt=DAY_1)
    study(service(), "kim", "cells", occurredAt=DAY_1)
    publish("biology", [])
    known = len(journal(app))

    began = datetime.now(UTC)
    publish("chemistry", ["cells", {"id": "genes", "weight": 0, "passingScore": 40}])
    ended = datetime.now(UTC)

    completed = [enrollment(service(), one, "chemistry") for one in ("sam", "kim")]
    assert [one["status"] for one in completed] == ["completed"] * 2
    assert all(began <= datetime.fromisoformat(one["completedAt"]) <= ended for one in completed)
    genes = records(service(), "kim", "chemistry")["genes"]
    assert genes["completedAt"] == completed[0]["completedAt"]
    told = [(one.type, one.user_id, one.content_id, one.module_id) for one in journal(app)[known:]]
    assert told[0] == ("module.published", None, None, "chemistry")
    assert sorted(told[1:3]) == [
        ("enrollment.created", "kim", None, "chemistry"),
        ("enrollment.created", "sam", None, "chemistry"),
    ]
    assert told[3] == ("content.completed", "kim", "genes", "chemistry")
    assert sorted(told[4:]) == [
        ("enrollment.completed", "kim", None, "chemistry"),
        ("enrollment.completed", "sam", None, "chemistry"),
    ]
    assert verified(app).exit_code == 0


def test_excuses_and_sessions_move_with_the_record(app: Flask, service: Callers, publish: Publish) -> None:
    publish("biology", ["cells", "genes"])
    study(service(), "kim", "cells", 10, session="one", timeSpentSeconds=300)
    excused = service().put("/api/progress/sam/biology/cells/excuse").get_json()["progress"]
    publish("biology", ["genes"])

    began = datetime.now(UTC)
    publish("algebra", ["cells"])
    study(service(), "kim", "cells", 10, session="one", timeSpentSeconds=360)

    assert counts(service(), "sam", "algebra") == ("completed", 100, 1, 1, 0)
    assert counts(service(), "sam", "biology") == ("active", 0, 0, 1, 0)
    assert datetime.fromisoformat(enrollment(service(), "sam", "algebra")["enrolledAt"]) >= began
    assert records(service(), "sam", "algebra")["cells"] == excused | {"moduleId": "algebra"}
    assert records(service(), "kim", "algebra")["cells"]["timeSpentSeconds"] == 360
    assert verified(app).exit_code == 0


@pytest.mark.parametrize("order", [("algebra", "biology"), ("biology", "algebra")])
def test_contents_move_between_the_modules_of_a_file_in_whatever_order_it_has_them(
    order: tuple[str, str], app: Flask, tmp_path: Path, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes"])
    publish("algebra", ["sets", "maps"])
    publish("botany", ["moss"])
    for content_id in ("genes", "sets"):
        study(service(), "sam", content_id)
    study(service(), "kim", "cells", 30)
    study(service(), "sam", "maps", 20)
    modules: dict[str, Iterable[str]] = {"biology": ["genes", "sets"], "algebra": ["cells", "maps"], "new": []}
    known = len(journal(app))

    loaded = load(app, tmp_path, {one: modules[one] for one in (*order, "new")})

    assert loaded.exit_code == 0, loaded.output
    assert counts(service(), "sam", "biology")[:4] == ("completed", 100, 2, 2)
    assert counts(service(), "sam", "algebra")[:4] == ("active", 10, 0, 2)
    assert counts(service(), "kim", "biology")[:4] == ("active", 0, 0, 2)
    assert counts(service(), "kim", "algebra")[:4] == ("active", 15, 0, 2)
    told = journal(app)[known:]
    assert {(one.module_id, one.data["created"], one.role) for one in told if one.type == "module.published"} == {
        ("algebra", False, "command"),
        ("biology", False, "command"),
        ("new", True, "command"),
    }
    assert verified(app).exit_code == 0

    before = stored(app)
    assert load(app, tmp_path, {one: modules[one] for one in (*order, "new")}).exit_code == 0
    assert stored(app) == before


@pytest.mark.parametrize(
    "modules",
    [
        {"algebra": ["sets", "cells"], "biology": ["genes", "cells"]},
        {"algebra": ["sets", "fresh"], "botany": ["fresh"]},
        {"algebra": ["sets", "gone"], "botany": ["gone"]},
    ],
    ids=["kept", "new", "retired"],
)
def test_a_content_that_two_modules_of_a_file_want_is_refused(
    modules: dict[str, Iterable[str]], app: Flask, tmp_path: Path, service: Callers, publish: Publish
) -> None:
    publish("biology", ["cells", "genes", "gone"])
    publish("biology", ["cells", "genes"])
    before = stored(app)

    loaded = load(app, tmp_path, modules)

    assert loaded.exit_code == 1
    wanted = {"cells", "fresh", "gone"}.intersection(*modules.values()).pop()
    assert f"{wanted}: The content is current in module" in loaded.stderr
    assert stored(app) == before


def test_moving_takes_no_more_statements_for_fifty_learners_and_contents_than_for_one(
    service: Callers, publish: Publish, statements: Statements
) -> None:
    counted = set()
    for size in (1, 50):
        ids = [f"content-{size}-{place}" for place in range(size)]
        publish(f"origin-{size}", ids)
        updates = [{"contentId": one, "userId": f"user-{place}"} for place, one in enumerate(ids)]
        assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200
        publish(f"origin-{size}", [])
        with statements() as sent:
            publish(f"target-{size}", ids)
        counted.add(len(sent))

    assert len(counted) == 1

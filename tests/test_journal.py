"""The journal tells everything that happens, once, in order, and by whom; and nothing that has not happened."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import pytest
from flask import Flask
from sqlalchemy import select

from progress_service.calculations import Actor, Update
from progress_service.store import database, recorder
from progress_service.store.database import db
from progress_service.store.models import Change
from tests.callers import Caller
from tests.conftest import Callers, Publish, stored
from tests.progress.sending import from_now, instant, moment, send

LMS, ADA, COMMAND = ("lms", "service"), ("ada", "admin"), (None, "command")
ALGEBRA, ENROLLMENT = "/api/catalog/modules/algebra", "/api/enrollments/sam/algebra"
MODULE = "/api/progress/sam/algebra"
DONE = {"progressPercentage": 100}
FACTS = {
    "progressPercentage": 0,
    "timeSpentSeconds": 0,
    "scorePercentage": None,
    "completedAt": None,
    "excusedAt": None,
}
"""The facts of a record that has only begun."""


class Told(NamedTuple):
    """A change: what it is about, without what is the same for all changes of a test."""

    type: str
    user_id: str | None
    module_id: str | None
    content_id: str | None
    by: tuple[str | None, str]
    time: datetime
    recorded_at: datetime
    data: Any

    @property
    def what(self) -> tuple[str, str | None]:
        """The type, and the content or else the learner."""
        return self.type, self.content_id or self.user_id


Journal: TypeAlias = Callable[[], list[Told]]


@pytest.fixture(autouse=True)
def _catalog(publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    publish("biology", ["cells"])


@pytest.fixture
def told(app: Flask) -> Journal:
    """Return what was told since this was last called, or since the catalog was published."""
    last = 0

    def new() -> list[Told]:
        nonlocal last
        found = select(*Change.__table__.columns).where(Change.id > last).order_by(Change.id)
        with app.app_context(), db.engine.connect() as connection:
            rows = connection.execute(found).all()
        last = max([last, *(row.id for row in rows)])
        return [
            Told(
                row.type,
                row.user_id,
                row.module_id,
                row.content_id,
                (row.by_sub, row.by_role),
                row.time,
                row.recorded_at,
                msgspec.json.decode(row.data),
            )
            for row in rows
        ]

    new()
    return new


def call(caller: Caller, method: str, path: str, body: Any = None, key: str | None = None) -> Any:
    response = caller.call(method, path, json=body, headers={"Idempotency-Key": key} if key else {})
    assert response.status_code < 300, response.text
    return response.get_json(silent=True)


def test_updates_tell_of_an_enrollment_and_of_completions_with_their_dates(service: Callers, told: Journal) -> None:
    before = instant(from_now(0))
    send(service(), "sets", userId="sam", occurredAt=moment(1), **DONE, score=1, maxScore=3)
    send(service(), "maps", userId="sam", occurredAt=moment(2), **DONE)

    changes = told()

    assert [(*change.what, change.time, change.data) for change in changes] == [
        ("enrollment.created", "sam", instant(moment(1)), {"status": "active", "counted": True}),
        ("content.completed", "sets", instant(moment(1)), {"scorePercentage": 33.33}),
        ("content.completed", "maps", instant(moment(2)), {"scorePercentage": None}),
        ("enrollment.completed", "sam", instant(moment(2)), {"progressPercentage": 100.0}),
    ]
    assert {(change.user_id, change.module_id, change.by) for change in changes} == {("sam", "algebra", LMS)}
    assert all(before <= change.recorded_at <= instant(from_now(0)) for change in changes)


def test_a_batch_tells_enrollments_then_contents_in_its_order_then_completed_enrollments(
    service: Callers, told: Journal
) -> None:
    pairs = [("uma", "maps"), ("sam", "sets"), ("sam", "maps"), ("sam", "cells"), ("uma", "sets"), ("sam", "sets")]
    updates = [{"userId": user_id, "contentId": content_id, **DONE} for user_id, content_id in pairs]

    call(service(), "POST", "/api/progress/batch", {"updates": updates})

    assert [(*change.what, change.user_id, change.module_id) for change in told()] == [
        ("enrollment.created", "uma", "uma", "algebra"),
        ("enrollment.created", "sam", "sam", "algebra"),
        ("enrollment.created", "sam", "sam", "biology"),
        ("content.completed", "maps", "uma", "algebra"),
        ("content.completed", "sets", "sam", "algebra"),
        ("content.completed", "maps", "sam", "algebra"),
        ("content.completed", "cells", "sam", "biology"),
        ("content.completed", "sets", "uma", "algebra"),
        ("enrollment.completed", "sam", "sam", "algebra"),
        ("enrollment.completed", "sam", "sam", "biology"),
        ("enrollment.completed", "uma", "uma", "algebra"),
    ]


def test_the_dates_are_those_that_the_request_leaves(service: Callers, told: Journal) -> None:
    parts = [("sets", 7), ("maps", 9), ("sets", 3), ("maps", 5)]
    updates = [{"userId": "sam", "contentId": one, "occurredAt": moment(minute), **DONE} for one, minute in parts]

    call(service(), "POST", "/api/progress/batch", {"updates": updates})

    enrollment = call(service(), "GET", ENROLLMENT)
    assert [(*change.what, change.time) for change in told()] == [
        ("enrollment.created", "sam", instant(moment(3))),
        ("content.completed", "sets", instant(moment(3))),
        ("content.completed", "maps", instant(moment(5))),
        ("enrollment.completed", "sam", instant(moment(5))),
    ]
    assert (enrollment["enrolledAt"], enrollment["completedAt"]) == (moment(3), moment(5))
    send(service(), "maps", userId="sam", occurredAt=moment(4), **DONE)
    assert call(service(), "GET", ENROLLMENT)["completedAt"] == moment(4)
    assert told() == [], "a date that moves later on is no change"


def test_a_completion_by_request_is_told_as_the_callers(student: Callers, told: Journal) -> None:
    record = send(student(), "sets")["progress"]

    call(student(), "PUT", f"/api/progress/{record['id']}/complete", {"score": 3, "maxScore": 4})

    enrolled, completed = told()
    assert enrolled.by == completed.by == ("sam", "student")
    assert (*completed.what, completed.data) == ("content.completed", "sets", {"scorePercentage": 75.0})


def test_updates_of_an_import_are_told_as_a_commands(app: Flask, tmp_path: Path, told: Journal) -> None:
    file = tmp_path / "updates.csv"
    file.write_text("userId,contentId,progressPercentage\nsam,sets,100\numa,cells,30\n")

    for _ in range(2):
        assert app.test_cli_runner().invoke(args=["progress", "import", "--updates", str(file)]).exit_code == 0

    changes = told()
    assert [change.what for change in changes] == [
        ("enrollment.created", "sam"),
        ("enrollment.created", "uma"),
        ("content.completed", "sets"),
    ]
    assert {change.by for change in changes} == {COMMAND}


def test_requests_that_share_a_transaction_are_told_one_after_another_each_by_its_caller(
    app: Flask, told: Journal
) -> None:
    now = datetime.now(UTC)
    requests = [("sam", "sets"), ("sam", "maps"), ("uma", "maps"), ("sam", "cells"), ("uma", "sets")]
    updates = [
        Update(user_id, content_id, now, progress_percentage=100, by=Actor(f"{user_id}-{content_id}", "service"))
        for user_id, content_id in requests
    ]

    with app.app_context():
        database.write(partial(recorder.record, updates=updates, auto_enroll=True, now=now, each_alone=True))

    assert [(*change.what, change.by[0]) for change in told()] == [
        ("enrollment.created", "sam", "sam-sets"),
        ("content.completed", "sets", "sam-sets"),
        ("content.completed", "maps", "sam-maps"),
        ("enrollment.completed", "sam", "sam-maps"),
        ("enrollment.created", "uma", "uma-maps"),
        ("content.completed", "maps", "uma-maps"),
        ("enrollment.created", "sam", "sam-cells"),
        ("content.completed", "cells", "sam-cells"),
        ("enrollment.completed", "sam", "sam-cells"),
        ("content.completed", "sets", "uma-sets"),
        ("enrollment.completed", "uma", "uma-sets"),
    ]


def test_the_platforms_changes_of_an_enrollment_are_told_with_what_was_there(service: Callers, told: Journal) -> None:
    call(service(), "PUT", ENROLLMENT, {"status": "paused", "counted": False, "enrolledAt": moment(1)})
    call(service(), "PUT", ENROLLMENT, {"status": "active", "counted": False})
    call(service(), "PUT", ENROLLMENT, {"enrolledAt": moment(0), "counted": True})

    created, *changed = told()
    assert (*created.what, created.time, created.data) == (
        "enrollment.created",
        "sam",
        instant(moment(1)),
        {"status": "paused", "counted": False},
    )
    assert [(change.type, change.data) for change in changed] == [
        ("enrollment.changed", {"before": {"status": "paused"}, "after": {"status": "active"}}),
        (
            "enrollment.changed",
            {
                "before": {"enrolledAt": moment(1), "counted": False},
                "after": {"enrolledAt": moment(0), "counted": True},
            },
        ),
    ]
    assert all(change.time == change.recorded_at for change in changed)


def test_a_completion_by_a_change_of_status_is_told_as_of_the_change(service: Callers, told: Journal) -> None:
    call(service(), "PUT", ENROLLMENT, {"status": "dropped"})
    for content_id in ("sets", "maps"):
        send(service(), content_id, userId="sam", **DONE)
    told()

    call(service("sis"), "PUT", ENROLLMENT, {"status": "active"})

    (completed,) = told()
    assert (*completed.what, completed.by) == ("enrollment.completed", "sam", ("sis", "service"))
    assert completed.time == completed.recorded_at
    assert completed.data == {"progressPercentage": 100.0}


def test_credit_is_told_with_its_date_and_so_is_another_date(service: Callers, told: Journal) -> None:
    for minute in (1, 2):
        call(service(), "PUT", ENROLLMENT, {"status": "completed", "completedAt": moment(minute)})

    created, completed, changed = told()
    assert (created.type, created.data["status"]) == ("enrollment.created", "active")
    assert (completed.type, completed.time) == ("enrollment.completed", instant(moment(1)))
    assert completed.data == {"progressPercentage": 0.0}
    assert changed.data == {"before": {"completedAt": moment(1)}, "after": {"completedAt": moment(2)}}


def test_a_reset_and_a_withdrawal_tell_what_was_there(service: Callers, told: Journal) -> None:
    scored = {"score": 1, "maxScore": 2, "timeSpentSeconds": 60}
    record = send(service(), "sets", userId="sam", occurredAt=moment(1), **DONE, **scored)["progress"]
    send(service(), "cells", userId="sam")
    there = {
        "status": "active",
        "progressPercentage": 50.0,
        "timeSpentSeconds": 60,
        "completedAt": None,
        "contents": [
            {
                "contentId": "sets",
                **FACTS,
                "progressPercentage": 100,
                "timeSpentSeconds": 60,
                "scorePercentage": 50.0,
                "completedAt": record["completedAt"],
            }
        ],
    }
    told()

    call(service(), "DELETE", MODULE)
    send(service(), "sets", userId="sam", timeSpentSeconds=9)
    call(service("sis"), "DELETE", ENROLLMENT)

    reset, withdrawn = told()
    assert (*reset.what, reset.by, reset.data) == ("progress.reset", "sam", LMS, there)
    assert (*withdrawn.what, withdrawn.by) == ("enrollment.withdrawn", "sam", ("sis", "service"))
    assert withdrawn.data == there | {
        "progressPercentage": 0.0,
        "timeSpentSeconds": 9,
        "contents": [{"contentId": "sets", **FACTS, "timeSpentSeconds": 9}],
    }
    assert reset.module_id == withdrawn.module_id == "algebra"


def test_corrections_tell_the_record_before_and_after(service: Callers, told: Journal) -> None:
    record = send(service(), "sets", userId="sam", progressPercentage=40)["progress"]
    told()

    call(service(), "PATCH", f"/api/progress/{record['id']}", {"progressPercentage": 30})
    call(service(), "PUT", f"{MODULE}/sets/excuse")
    call(service(), "DELETE", f"{MODULE}/sets/excuse")
    call(service(), "DELETE", f"{MODULE}/sets")

    changes = told()
    excused_at = changes[1].data["after"]["excusedAt"]
    begun = FACTS | {"progressPercentage": 30}
    excused = FACTS | {"progressPercentage": 100, "excusedAt": excused_at}
    assert instant(excused_at) == changes[1].time
    assert [(*change.what, change.data["before"], change.data["after"]) for change in changes] == [
        ("progress.corrected", "sets", FACTS | {"progressPercentage": 40}, begun),
        ("content.excused", "sets", begun, excused),
        ("progress.corrected", "sets", excused, begun),
        ("progress.corrected", "sets", begun, None),
    ]
    assert {change.by for change in changes} == {LMS}


def test_a_correction_is_told_before_the_completions_that_it_makes(service: Callers, told: Journal) -> None:
    send(service(), "maps", userId="sam", **DONE)
    record = send(service(), "sets", userId="sam")["progress"]
    told()

    call(service(), "PATCH", f"/api/progress/{record['id']}", DONE)
    call(service(), "PUT", "/api/progress/uma/biology/cells/excuse")

    assert [change.what for change in told()] == [
        ("progress.corrected", "sets"),
        ("content.completed", "sets"),
        ("enrollment.completed", "sam"),
        ("enrollment.created", "uma"),
        ("content.excused", "cells"),
        ("enrollment.completed", "uma"),
    ]


def test_a_merge_is_told_with_the_completion_that_only_it_makes(service: Callers, told: Journal) -> None:
    send(service(), "sets", userId="sam-old", occurredAt=moment(1), **DONE)
    send(service(), "maps", userId="sam", occurredAt=moment(2), **DONE)
    told()

    call(service(), "POST", "/api/progress/sam-old/merge", {"into": "sam"})

    merged, completed = told()
    assert (*merged.what, merged.module_id, merged.data) == ("learner.merged", "sam-old", None, {"into": "sam"})
    assert (*completed.what, completed.time) == ("enrollment.completed", "sam", instant(moment(2)))


def test_an_erasure_is_all_that_is_told_of_an_erased_learner(service: Callers, told: Journal) -> None:
    for user_id in ("uma", "sam"):
        send(service(), "sets", userId=user_id, **DONE)
    told()

    call(service(), "DELETE", "/api/progress/sam")

    (erased,) = told()
    assert erased[:5] == ("learner.erased", "sam", None, None, LMS)
    assert erased.data == {}


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("DELETE", "/api/progress/sam", None, "learner.erased"),
        ("POST", "/api/progress/sam/merge", {"into": "uma"}, "learner.merged"),
    ],
)
def test_what_becomes_of_a_learner_without_enrollments_is_told_where_the_journal_knows_them(
    method: str, path: str, body: Any, kind: str, service: Callers, told: Journal
) -> None:
    send(service(), "sets", userId="sam")
    call(service(), "DELETE", ENROLLMENT)
    told()

    call(service(), method, path, body)

    assert [change.what for change in told()] == [(kind, "sam")]


def test_a_published_module_is_told_before_the_completions_that_it_makes(
    publish: Publish, service: Callers, told: Journal
) -> None:
    for user_id in ("uma", "sam"):
        send(service(), "maps", userId=user_id, **DONE)
        send(service(), "sets", userId=user_id, progressPercentage=50, score=2, maxScore=3)
    told()

    publish("algebra", [{"id": "sets", "completionThreshold": 50}, "maps"])
    publish("chess", ["rules"])

    changes = told()
    assert [(*change.what, change.module_id) for change in changes] == [
        ("module.published", None, "algebra"),
        ("content.completed", "sets", "algebra"),
        ("content.completed", "sets", "algebra"),
        ("enrollment.completed", "sam", "algebra"),
        ("enrollment.completed", "uma", "algebra"),
        ("module.published", None, "chess"),
    ]
    assert [change.data for change in changes] == [
        {"created": False},
        *2 * [{"scorePercentage": 66.66}],
        *2 * [{"progressPercentage": 100.0}],
        {"created": True},
    ]
    assert {change.by for change in changes} == {ADA}
    assert all(change.time == change.recorded_at for change in changes)


def test_a_content_that_is_left_out_completes_whoever_has_done_the_rest(
    publish: Publish, service: Callers, told: Journal
) -> None:
    send(service(), "sets", userId="sam", **DONE)
    told()

    publish("algebra", ["sets"])

    assert [change.what for change in told()] == [("module.published", None), ("enrollment.completed", "sam")]


def test_what_changes_nothing_is_not_told(app: Flask, publish: Publish, service: Callers, told: Journal) -> None:
    record = send(service(), "sets", userId="sam", **DONE, timeSpentSeconds=1)["progress"]
    call(service(), "PUT", f"{MODULE}/maps/excuse")
    call(service(), "PUT", "/api/enrollments/uma/algebra", {})
    assert len(told()) == 5

    for _ in range(2):
        send(service(), "sets", userId="sam", **DONE, timeSpentSeconds=1, position="end")
    send(service(), "cells", userId="uma", progressPercentage=99)
    call(service(), "PUT", f"/api/progress/{record['id']}/complete", {})
    call(service(), "PUT", ENROLLMENT, {})
    call(service(), "PUT", ENROLLMENT, call(service(), "GET", ENROLLMENT))
    call(service(), "PUT", ENROLLMENT, {"status": "dropped"})
    call(service(), "PUT", f"{MODULE}/maps/excuse")
    call(service(), "DELETE", f"{MODULE}/sets/excuse")
    call(service(), "DELETE", "/api/progress/uma/algebra/sets")
    call(service(), "PATCH", f"/api/progress/{record['id']}", {"progressPercentage": 100})
    call(service(), "DELETE", "/api/progress/uma/algebra")
    call(service(), "DELETE", "/api/enrollments/nobody/algebra")
    call(service(), "DELETE", "/api/progress/nobody/algebra")
    call(service(), "DELETE", "/api/progress/nobody")
    call(service(), "POST", "/api/progress/nobody/merge", {"into": "sam"})
    publish("algebra", ["sets", "maps"])

    assert [change.what for change in told()] == [("enrollment.created", "uma")], "which the update of cells did"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/progress/batch", {"updates": [{"userId": "uma", "contentId": "sets", **DONE}, {}]}, 422),
        (
            "POST",
            "/api/progress/batch",
            {"updates": [{"userId": "uma", "contentId": one, **DONE} for one in ("sets", "lost")]},
            422,
        ),
        ("PUT", "/api/enrollments/uma/lost", {}, 404),
        ("PUT", "/api/progress/{record}/complete", {}, 409),
        ("PUT", "/api/progress/uma/algebra/lost/excuse", None, 404),
        ("PUT", "/api/catalog/modules/chess", {"title": "Chess", "contents": [{"id": "sets"}]}, 422),
        (
            "PUT",
            "/api/catalog/modules/chess",
            {"title": "C", "contents": [{"id": "sets", "title": "S", "type": "x"}]},
            409,
        ),
        ("POST", "/api/progress/sam/merge", {"into": "sam"}, 422),
    ],
)
def test_what_is_refused_is_not_told(
    method: str,
    path: str,
    body: Any,
    status: int,
    app: Flask,
    publish: Publish,
    service: Callers,
    told: Journal,
) -> None:
    publish("biology", [{"id": "cells", "passingScore": 50}])
    record = send(service(), "cells", userId="sam", **DONE)["progress"]
    told()
    before = stored(app)

    assert service().call(method, path.format(record=record["id"]), json=body).status_code == status

    assert told() == []
    assert stored(app) == before


def test_a_repeat_with_its_key_tells_nothing_twice(service: Callers, told: Journal) -> None:
    update = {"userId": "sam", "contentId": "sets", **DONE}
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/api/progress", update),
        ("POST", "/api/progress/batch", {"updates": [update | {"contentId": "maps"}]}),
        ("PUT", "/api/enrollments/uma/algebra", {}),
        ("PUT", "/api/progress/uma/algebra/sets/excuse", None),
        ("PUT", ALGEBRA, {"title": "Algebra II", "contents": []}),
    ]
    for place, request in enumerate(requests):
        call(service(), *request, key=f"key-{place}")
    first = told()
    assert len(first) == 7

    for place, request in enumerate(requests):
        call(service(), *request, key=f"key-{place}")

    assert told() == []


def test_data_are_of_the_same_form_from_both_ways_of_writing(publish: Publish, service: Callers, told: Journal) -> None:
    """An update is told by a document, and a catalog change by SQL; percentages in both have two decimals."""
    for place, score in enumerate((1, 2, 3)):
        learner = f"u{place}"
        send(service(), "sets", userId=learner, progressPercentage=100, score=score, maxScore=3)
        send(service(), "maps", userId=learner, progressPercentage=50, score=score, maxScore=3)
    by_updates = [change.data for change in told() if change.type == "content.completed"]

    publish("algebra", ["sets", {"id": "maps", "completionThreshold": 50}])

    by_publishing = [change.data for change in told() if change.type == "content.completed"]
    assert by_updates == by_publishing == [{"scorePercentage": value} for value in (33.33, 66.66, 100.0)]

"""Which groups a learner counts in: tables of the rule, and that the recount in SQL says the same."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, func, select

from progress_service.calculations import (
    ACTIVE,
    COMMAND,
    COMPLETED,
    DROPPED,
    PAUSED,
    POINT,
    ActivityDay,
    Denominators,
    Enrollment,
    Record,
    Update,
)
from progress_service.store import corrections, database, models, publishing, recorder, verification
from progress_service.store.database import db
from progress_service.store.learning import EnrollmentChange, EnrollmentKey
from progress_service.store.publishing import PublishedContent, PublishedModule
from progress_service.store.values import columns
from progress_service.tallies import Changes, Counts, Group, of_day, of_enrollment, of_record
from tests.callers import Caller
from tests.conftest import Callers, examples

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
SUNDAY = MONDAY - timedelta(microseconds=1)
MODULE = Denominators(total_weight=3, total_contents=2)
NOBODY = Denominators(total_weight=0, total_contents=0)


def group(kind: str, item: str) -> Group:
    return Group("algebra", kind, item)


def enrollment(status: str = ACTIVE, weighted_sum: int = 0, last: datetime | None = None, **others: Any) -> Enrollment:
    content_id = None if last is None else "maps"
    totals = {"weighted_sum": weighted_sum, "last_activity_at": last, "last_content_id": content_id}
    return Enrollment("sam", "algebra", status, MONDAY, **(totals | others))


@pytest.mark.parametrize(
    ("given", "module", "expected"),
    [
        (
            enrollment(),
            MODULE,
            {group("status", "active"): Counts(learners=1), group("percentage", "0"): Counts(learners=1)},
        ),
        (
            enrollment(PAUSED, 199, SUNDAY, time_spent_seconds=61),
            MODULE,
            {
                group("status", "paused"): Counts(1, started=1, time_spent_seconds=61, weighted_sum=199),
                group("percentage", "66"): Counts(learners=1),
                group("last_week", "2026-02-23 maps"): Counts(learners=1),
                group("last_day", "2026-03-01 maps"): Counts(learners=1),
            },
        ),
        (
            enrollment(ACTIVE, 299, MONDAY),
            MODULE,
            {
                group("status", "active"): Counts(1, started=1, weighted_sum=299),
                group("percentage", "99"): Counts(learners=1),
                group("last_week", "2026-03-02 maps"): Counts(learners=1),
                group("last_day", "2026-03-02 maps"): Counts(learners=1),
            },
        ),
        (
            enrollment(DROPPED, 200, MONDAY, time_spent_seconds=5),
            MODULE,
            {group("status", "dropped"): Counts(1, started=1, time_spent_seconds=5, weighted_sum=200)},
        ),
        (
            enrollment(COMPLETED, 300, MONDAY, completed_at=SUNDAY),
            MODULE,
            {
                group("status", "completed"): Counts(1, started=1, weighted_sum=300),
                group("percentage", "100"): Counts(learners=1),
                group("day", "2026-03-01"): Counts(enrollments_completed=1),
            },
        ),
        (
            enrollment(ACTIVE, 0, MONDAY),
            NOBODY,
            {
                group("status", "active"): Counts(1, started=1),
                group("percentage", "0"): Counts(learners=1),
                group("last_week", "2026-03-02 maps"): Counts(learners=1),
                group("last_day", "2026-03-02 maps"): Counts(learners=1),
            },
        ),
    ],
)
def test_an_enrollment_counts_by_status_percentage_last_update_and_completion(
    given: Enrollment, module: Denominators, expected: dict[Group, Counts]
) -> None:
    shares = list(of_enrollment(given, module))

    assert dict(shares) == expected
    assert len(shares) == len(expected)


def record(**others: Any) -> Record:
    return Record(UUID(int=7), "sam", "algebra", "sets", SUNDAY, MONDAY + timedelta(days=9), **others)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (record(), [(group("content", "sets"), Counts(started=1)), (group("day", "2026-03-01"), Counts(started=1))]),
        (
            record(time_spent_seconds=7, score=0, max_score=POINT, furthest_percentage=100),
            [
                (group("content", "sets"), Counts(started=1, time_spent_seconds=7, scored=1)),
                (group("day", "2026-03-01"), Counts(started=1)),
            ],
        ),
        (
            record(score=2 * POINT, max_score=3 * POINT, completed_at=MONDAY),
            [
                (group("content", "sets"), Counts(started=1, completed=1, scored=1, score_hundredths=6666)),
                (group("day", "2026-03-01"), Counts(started=1)),
                (group("day", "2026-03-02"), Counts(completed=1)),
            ],
        ),
        (
            record(completed_at=SUNDAY),
            [
                (group("content", "sets"), Counts(started=1, completed=1)),
                (group("day", "2026-03-01"), Counts(started=1)),
                (group("day", "2026-03-01"), Counts(completed=1)),
            ],
        ),
    ],
)
def test_a_record_counts_by_content_and_on_the_days_of_its_start_and_completion(
    given: Record, expected: list[tuple[Group, Counts]]
) -> None:
    assert list(of_record(given)) == expected


@pytest.mark.parametrize("seconds", [0, 86_401])
def test_a_day_of_activity_counts_its_learner_and_their_time(seconds: int) -> None:
    day = ActivityDay("sam", "algebra", date(2026, 3, 1), seconds)

    assert list(of_day(day)) == [(group("day", "2026-03-01"), Counts(learners=1, time_spent_seconds=seconds))]


def test_changes_take_out_what_counted_and_add_what_counts() -> None:
    paused, active, week = group("status", "paused"), group("status", "active"), group("last_week", "2026-03-02 maps")
    changes = Changes()

    changes.replace([(active, Counts(1, weighted_sum=50)), (week, Counts(1))], [(active, Counts(1, weighted_sum=80))])
    assert changes == {active: Counts(weighted_sum=30), week: Counts(-1)}

    changes.replace([(active, Counts(1, weighted_sum=80))], [(paused, Counts(1, 1)), (week, Counts(1))])
    assert changes == {active: Counts(-1, weighted_sum=-50), week: Counts(), paused: Counts(1, 1)}


def test_two_shares_of_one_group_add_up() -> None:
    changes = Changes()

    changes.replace([], [*of_record(record(completed_at=SUNDAY)), *of_record(record(completed_at=MONDAY))])

    assert changes == {
        group("content", "sets"): Counts(started=2, completed=2),
        group("day", "2026-03-01"): Counts(started=2, completed=1),
        group("day", "2026-03-02"): Counts(completed=1),
    }


shares = st.lists(
    st.tuples(
        st.builds(group, st.sampled_from(["status", "day"]), st.sampled_from("ab")),
        st.builds(Counts, *[st.integers(-5, 5)] * len(Counts._fields)),
    )
)


@given(shares, shares)
def test_what_is_replaced_and_put_back_changes_nothing(before: Any, after: Any) -> None:
    changes = Changes()

    changes.replace(before, after)
    changes.replace(after, before)

    assert not any(any(counts) for counts in changes.values())


class Publish(NamedTuple):
    weights: list[int | None]
    """Of the contents in order; None for one that is left out."""
    rule: tuple[int, int | None] = (100, None)
    """The threshold and the passing score of each content."""


class Reset(NamedTuple):
    user_id: str


class Erase(NamedTuple):
    user_id: str


class Send(NamedTuple):
    updates: list[Update]


class Enroll(NamedTuple):
    changes: list[EnrollmentChange]


Action: TypeAlias = Send | Enroll | Publish | Reset | Erase

LEARNERS, CONTENTS = ["sam", "kim", "lee"], ["sets", "maps"]
# The first and last instants of days, of weeks and of years, in the past and at the epoch.
EDGES = [datetime(1970, 1, 1, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), SUNDAY, MONDAY]
EDGES += [MONDAY + timedelta(days=6, hours=23), datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]
learners, instants = st.sampled_from(LEARNERS), st.sampled_from(EDGES)
scores = st.sampled_from([(None, None), (0, 1), (1, 7 * POINT), (2 * POINT, 3 * POINT), (10**10, 10**10)])
updates = st.builds(
    lambda user_id, content_id, at, percentage, seconds, score: Update(
        user_id, content_id, at, percentage, seconds, *score
    ),
    learners,
    st.sampled_from(CONTENTS),
    instants,
    st.sampled_from([0, 33, 50, 99, 100, 100]),
    st.sampled_from([0, 1, 14_400]),
    scores,
)
enrollments = st.builds(
    EnrollmentChange,
    learners,
    st.just("algebra"),
    st.sampled_from([None, ACTIVE, PAUSED, DROPPED]),
    st.none() | instants,
    st.sampled_from([None, None, True, False]),
)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Send, st.lists(updates, min_size=1, max_size=6)),
    st.builds(Send, st.lists(updates, min_size=1, max_size=2)),
    st.builds(Enroll, st.lists(enrollments, min_size=1, max_size=3)),
    st.builds(
        Publish,
        st.lists(st.sampled_from([None, 0, 1, 2, 10_000]), min_size=2, max_size=2),
        st.sampled_from([(100, None), (100, None), (50, None), (33, 6666), (100, 10_000)]),
    ),
    st.builds(Reset, learners),
    st.builds(Erase, learners),
)


class World:
    """A module that nobody has begun, and another one with a learner."""

    def __init__(self, app: Flask, service: Caller) -> None:
        self.app, self.service = app, service
        with app.app_context(), db.engine.begin() as connection:
            for table in reversed(db.metadata.sorted_tables):
                connection.execute(table.delete())
        self.perform(Publish([1, 2]))
        self.write(lambda connection: publish(connection, "biology", {"cells": 1}))
        self.perform(Send([Update(user_id, "cells", MONDAY, 40, 60) for user_id in ("sam", "noah")]))

    def write(self, work: Any) -> None:
        with self.app.app_context():
            database.write(work)

    def perform(self, action: Action) -> None:
        now = datetime.now(UTC)
        match action:
            case Send(updates):
                self.write(lambda connection: recorder.record(connection, updates, auto_enroll=True, now=now))
            case Enroll(changes):
                self.write(lambda connection: recorder.enroll(connection, changes, now=now, by=COMMAND))
            case Publish(weights, rule):
                given = dict(zip(CONTENTS, weights, strict=True))
                current = {content_id: weight for content_id, weight in given.items() if weight is not None}
                self.write(lambda connection: publish(connection, "algebra", current, rule))
            case Reset(user_id):
                key = EnrollmentKey(user_id, "algebra")
                self.write(lambda connection: corrections.reset(connection, key, by=COMMAND, now=now))
            case Erase(user_id):
                self.write(lambda connection: corrections.erase(connection, user_id, by=COMMAND, now=now))

    def read(self, work: Any) -> Any:
        with self.app.app_context():
            return database.read(work)

    def answers(self) -> list[Any]:
        """Read whatever tallies and last updates show."""
        paths = ["?stalledDays=1", "?stalledDays=365", "/learners?sort=-lastActivity", "/learners?inactiveDays=9"]
        paths += [f"/timeline?from={year}-01-01&to={year}-12-31" for year in (1970, 1999, 2024, 2025, 2026)]
        modules = ("algebra", "biology")
        found = [self.service.get(f"/api/progress/stats/{module}{path}") for module in modules for path in paths]
        assert {response.status_code for response in found} == {200}
        return [response.get_json() for response in found]


def publish(
    connection: Connection, module_id: str, weights: dict[str, int], rule: tuple[int, int | None] = (100, None)
) -> None:
    contents = [PublishedContent(one, one.title(), "video", None, weight, *rule) for one, weight in weights.items()]
    module = PublishedModule(module_id, module_id.title(), [], contents)
    publishing.publish(connection, module, now=datetime.now(UTC), by=COMMAND)


def stored(connection: Connection) -> dict[Group, Counts]:
    """Add up the parts of the tallies."""
    sums = (func.sum(getattr(models.Tally, name)) for name in Counts._fields)
    key = models.Tally.module_id, models.Tally.kind, models.Tally.item
    rows = connection.execute(select(*key, *sums).group_by(*key)).all()
    return {Group(*row[:3]): Counts(*map(int, row[3:])) for row in rows if any(row[3:])}


def counted(connection: Connection) -> dict[Group, Counts]:
    """Add up the shares of everything that is stored."""

    def everything(model: Any, kind: Any) -> Sequence[Any]:
        return [kind(*row) for row in connection.execute(select(*columns(model, kind)))]

    rows = connection.execute(select(models.Module.id, *columns(models.Module, Denominators)))
    modules = {module_id: Denominators(*row) for module_id, *row in rows}
    changes = Changes()
    counting = set()
    for one in everything(models.Enrollment, Enrollment):
        if one.counted:
            counting.add((one.user_id, one.module_id))
            changes.replace([], of_enrollment(one, modules[one.module_id]))
    for one in everything(models.ProgressRecord, Record):
        if (one.user_id, one.module_id) in counting:
            changes.replace([], of_record(one))
    for one in everything(models.ActivityDay, ActivityDay):
        if (one.user_id, one.module_id) in counting:
            changes.replace([], of_day(one))
    return dict(changes)


COMPLETED_AND_TAKEN_BACK: list[Action] = [
    Send([Update("sam", content_id, SUNDAY, 100) for content_id in CONTENTS]),
    Send([Update("kim", "sets", MONDAY, 100), Update("lee", "maps", SUNDAY, 100)]),
    Enroll([EnrollmentChange("lee", "algebra", PAUSED)]),
    Publish([1, None]),
    Publish([0, 10_000]),
    Reset("sam"),
]
RELAXED_FOR_A_VISITOR_TOO: list[Action] = [
    Publish([1, 2], (100, 10_000)),
    Send([Update("sam", one, MONDAY, 50, 1, 2 * POINT, 3 * POINT) for one in CONTENTS]),
    Send([Update("kim", one, MONDAY, 50, 1, 2 * POINT, 3 * POINT) for one in CONTENTS]),
    Enroll([EnrollmentChange("kim", "algebra", counted=False)]),
    Publish([1, 2], (33, 6666)),
]


@pytest.mark.slow
@pytest.mark.no_cover
def test_what_every_write_adds_is_what_python_and_sql_count(app: Flask, service: Callers) -> None:
    # Without shrinking, which would take minutes of transactions.
    @settings(max_examples=examples(15), phases=set(Phase) - {Phase.shrink, Phase.explain})
    @given(st.lists(actions, min_size=3, max_size=12))
    @example(COMPLETED_AND_TAKEN_BACK)
    @example(RELAXED_FOR_A_VISITOR_TOO)
    @example([step for place, step in enumerate(RELAXED_FOR_A_VISITOR_TOO) if place != 1])
    def check(sequence: list[Action]) -> None:
        world = World(app, service())
        for action in sequence:
            world.perform(action)
        assert world.read(stored) == world.read(counted)
        assert world.read(lambda connection: list(verification.drifts(connection))) == []

        tallies, answers = world.read(stored), world.answers()
        world.write(lambda connection: connection.execute(delete(models.Tally)))
        assert world.read(stored) == {}
        repaired = app.test_cli_runner().invoke(args=["progress", "verify", "--repair"])
        assert repaired.exit_code == 1, repaired.output
        assert world.read(stored) == tallies
        assert world.answers() == answers
        assert app.test_cli_runner().invoke(args=["progress", "verify"]).exit_code == 0

    check()

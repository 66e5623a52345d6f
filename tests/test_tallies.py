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
from sqlalchemy import update as sql_update

from progress_service import calculations
from progress_service.calculations import (
    ACTIVE,
    COMMAND,
    COMPLETED,
    DROPPED,
    PAUSED,
    POINT,
    ActivityDay,
    ContentRule,
    Denominators,
    Enrollment,
    Record,
    Update,
)
from progress_service.store import corrections, database, models, publishing, recorder, recount, verification
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
    moves: bool = False
    """Whether the contents that are left out move to the other module, until they are published here again."""


class Reset(NamedTuple):
    user_id: str


class Withdraw(NamedTuple):
    user_id: str


class Erase(NamedTuple):
    user_id: str


class Merge(NamedTuple):
    user_id: str
    into: str


class Remove(NamedTuple):
    user_id: str
    content_id: str


class Excuse(NamedTuple):
    user_id: str
    content_id: str


class WithdrawExcuse(NamedTuple):
    user_id: str
    content_id: str


class Correct(NamedTuple):
    user_id: str
    content_id: str
    given: dict[str, Any]


class Send(NamedTuple):
    updates: list[Update]


class Enroll(NamedTuple):
    changes: list[EnrollmentChange]


Action: TypeAlias = (
    Send | Enroll | Publish | Reset | Withdraw | Erase | Merge | Remove | Excuse | WithdrawExcuse | Correct
)

LEARNERS, CONTENTS = ["sam", "kim", "lee"], ["sets", "maps"]
# The first and last instants of days, of weeks and of years, in the past and at the epoch.
EDGES = [datetime(1970, 1, 1, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), SUNDAY, MONDAY]
EDGES += [MONDAY + timedelta(days=6, hours=23), datetime(2024, 2, 29, 12, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)]
learners, contents, instants = st.sampled_from(LEARNERS), st.sampled_from(CONTENTS), st.sampled_from(EDGES)
scores = st.sampled_from([(None, None), (0, 1), (1, 7 * POINT), (2 * POINT, 3 * POINT), (10**10, 10**10)])
updates = st.builds(
    lambda user_id, content_id, at, percentage, seconds, score: Update(
        user_id, content_id, at, percentage, seconds, *score
    ),
    learners,
    contents,
    instants,
    st.sampled_from([0, 33, 50, 99, 100, 100]),
    st.sampled_from([0, 1, 14_400]),
    scores,
)
enrollments = st.builds(
    EnrollmentChange,
    learners,
    st.just("algebra"),
    st.sampled_from([None, ACTIVE, PAUSED, DROPPED, COMPLETED]),
    st.none() | instants,
    st.sampled_from([None, None, True, False]),
    st.none() | instants,
    st.none(),
)
# The same percentages and scores as of updates, no score, and nothing about either.
corrections_given = st.one_of(
    st.builds(lambda percentage: {"progress_percentage": percentage}, st.sampled_from([0, 33, 99, 100])),
    st.builds(lambda score: dict(zip(("score", "max_score"), score, strict=True)), scores),
    st.sampled_from([{"time_spent_seconds": 0}, {"time_spent_seconds": 7, "position": "p"}]),
)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Send, st.lists(updates, min_size=1, max_size=6)),
    st.builds(Send, st.lists(updates, min_size=1, max_size=2)),
    st.builds(Enroll, st.lists(enrollments, min_size=1, max_size=3)),
    st.builds(
        Publish,
        st.lists(st.sampled_from([None, 0, 1, 2, 10_000]), min_size=2, max_size=2),
        st.sampled_from([(100, None), (100, None), (50, None), (33, 6666), (100, 10_000)]),
        st.booleans(),
    ),
    st.builds(Correct, learners, contents, corrections_given),
    st.builds(Remove, learners, contents),
    st.builds(Excuse, learners, contents),
    st.builds(Excuse, learners, contents),
    st.builds(WithdrawExcuse, learners, contents),
    st.builds(Merge, learners, learners).filter(lambda merge: merge.user_id != merge.into),
    st.builds(Reset, learners),
    st.builds(Withdraw, learners),
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
            case Publish(weights, rule, moves):
                given = dict(zip(CONTENTS, weights, strict=True))
                current = {content_id: weight for content_id, weight in given.items() if weight is not None}
                moved = {content_id: 1 for content_id in given if moves and content_id not in current}
                modules = [module("algebra", current, rule), module("biology", {"cells": 1, **moved}, rule)]
                self.write(lambda connection: publishing.publish_all(connection, modules, now=now, by=COMMAND))
            case Reset(user_id):
                key = EnrollmentKey(user_id, "algebra")
                self.write(lambda connection: corrections.reset(connection, key, by=COMMAND, now=now))
            case Withdraw(user_id):
                key = EnrollmentKey(user_id, "algebra")
                self.write(lambda connection: corrections.withdraw(connection, key, by=COMMAND, now=now))
            case Erase(user_id):
                self.write(lambda connection: corrections.erase(connection, user_id, by=COMMAND, now=now))
            case Merge(user_id, into):
                self.write(lambda connection: corrections.merge(connection, user_id, into, by=COMMAND, now=now))
            case Remove(user_id, content_id):
                key = self.owner(user_id, content_id)
                self.write(lambda connection: corrections.remove(connection, key, content_id, by=COMMAND, now=now))
            case Excuse(user_id, content_id):
                key = self.owner(user_id, content_id)
                self.write(lambda connection: corrections.excuse(connection, key, content_id, by=COMMAND, now=now))
            case WithdrawExcuse(user_id, content_id):
                key = self.owner(user_id, content_id)
                self.write(
                    lambda connection: corrections.withdraw_excuse(connection, key, content_id, by=COMMAND, now=now)
                )
            case Correct(user_id, content_id, given):
                record = select(models.ProgressRecord.id).filter_by(user_id=user_id, content_id=content_id)
                id_ = self.read(lambda connection: connection.execute(record).scalar())
                if id_ is not None:
                    self.write(lambda connection: corrections.correct(connection, id_, given, by=COMMAND, now=now))

    def owner(self, user_id: str, content_id: str) -> EnrollmentKey:
        """Return the enrollment of a learner in the module to which a content belongs now."""
        owner = select(models.Content.module_id).filter_by(id=content_id)
        module_id = self.read(lambda connection: connection.execute(owner).scalar())
        return EnrollmentKey(user_id, module_id or "algebra")

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


def module(module_id: str, weights: dict[str, int], rule: tuple[int, int | None]) -> PublishedModule:
    contents = [PublishedContent(one, one.title(), "video", None, weight, *rule) for one, weight in weights.items()]
    return PublishedModule(module_id, module_id.title(), [], contents)


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


def blanked(connection: Connection) -> list[Enrollment]:
    """Take the totals out of every enrollment, and return what the rule in Python makes of their records."""
    nothing = dict.fromkeys(recount.SUMS, 0) | {"last_activity_at": None, "last_content_id": None}
    connection.execute(sql_update(models.Enrollment).values(**nothing, last_is_excused=False))
    contents = {
        content_id: ContentRule(*rule)
        for content_id, *rule in connection.execute(select(models.Content.id, *columns(models.Content, ContentRule)))
    }
    records = [Record(*row) for row in connection.execute(select(*columns(models.ProgressRecord, Record)))]
    return [
        calculations.recount(
            one, [record for record in records if record[1:3] == (one.user_id, one.module_id)], contents
        )
        for one in enrollments_of(connection)
    ]


def enrollments_of(connection: Connection) -> list[Enrollment]:
    by_key = models.Enrollment.user_id, models.Enrollment.module_id
    found = select(*columns(models.Enrollment, Enrollment)).order_by(*by_key)
    return [Enrollment(*row) for row in connection.execute(found)]


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


WORKED_AND_EXCUSED: list[Action] = [
    Send([Update(one, "sets", MONDAY, 100, 5, POINT, POINT) for one in LEARNERS]),
    Excuse("sam", "sets"),
    Excuse("kim", "maps"),
    Excuse("lee", "sets"),
    Publish([1, None], moves=True),
    Correct("lee", "sets", {"progress_percentage": 33}),
    WithdrawExcuse("lee", "sets"),
]
MOVED_AND_MERGED: list[Action] = [
    Send([Update("sam", "sets", MONDAY, 50, 5), Update("sam", "maps", MONDAY, 100, 5)]),
    Enroll([EnrollmentChange("sam", "algebra", counted=False)]),
    Send([Update("kim", "maps", SUNDAY, 33, 7)]),
    Publish([2, None], (50, None), moves=True),
    Merge("sam", "kim"),
    Publish([1, 2], (100, 10_000)),
    Remove("kim", "maps"),
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
    @example(WORKED_AND_EXCUSED)
    @example(MOVED_AND_MERGED)
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

        recounted: list[Enrollment] = []
        world.write(lambda connection: recounted.extend(blanked(connection)))
        app.test_cli_runner().invoke(args=["progress", "verify", "--repair"])
        assert world.read(enrollments_of) == recounted
        assert world.read(stored) == world.read(counted)

    check()

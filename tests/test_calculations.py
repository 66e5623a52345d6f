"""The rules of progress, without an application: tables of boundaries, and what holds for any updates."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import chain, combinations
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_service.calculations import (
    ACTIVE,
    COMPLETED,
    DROPPED,
    PAUSED,
    POINT,
    ContentRule,
    CriteriaNotMet,
    Denominators,
    Enrollment,
    LineDates,
    Record,
    Session,
    Update,
    apply,
    best_score,
    change,
    complete,
    completes,
    contributed,
    correct,
    count,
    dates_done,
    heed,
    is_complete,
    is_passed,
    join,
    merge,
    missing,
    module_percentage,
    part_of_module,
    recount,
    restart,
    rounded_down,
    score_percentage,
    settle,
    share,
    sit,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
MINUTES = [NOON + timedelta(minutes=minute) for minute in range(10)]
PASSED: dict[str, Any] = {"score": 6 * POINT, "max_score": 10 * POINT}
FAILED: dict[str, Any] = {"score": 5 * POINT, "max_score": 10 * POINT}


def rule(
    threshold: int = 100, passing_score: int | None = None, *, weight: int = 1, retired: bool = False
) -> ContentRule:
    return ContentRule("algebra", weight, threshold, passing_score, retired)


def report(percentage: int = 0, at: datetime = NOON, **others: Any) -> Update:
    return Update("sam", "intro", at, percentage, **others)


def start(update: Update) -> Record:
    return Record(UUID(int=7), "sam", "algebra", update.content_id, update.occurred_at, update.occurred_at)


def fold(updates: Sequence[Update], content: ContentRule) -> Record:
    record = start(updates[0])
    sessions: dict[str, Session] = {}
    for update in updates:
        if update.session:
            sessions[update.session], added = sit(sessions.get(update.session), update, NOON)
            update = update._replace(time_spent_seconds=added)
        record = apply(record, update, content)
    return record


def state(record: Record) -> tuple[int, bool]:
    """What is shown of a record: its percentage, and whether it is completed."""
    return record.progress_percentage, record.completed_at is not None


def enrollment(status: str = ACTIVE, completed_contents: int = 0) -> Enrollment:
    completed_at = NOON if status == COMPLETED else None
    return Enrollment("sam", "algebra", status, NOON, completed_contents=completed_contents, completed_at=completed_at)


@pytest.mark.parametrize(
    ("content", "updates", "expected"),
    [
        (rule(), [report()], (0, False)),
        (rule(), [report(1)], (1, False)),
        (rule(), [report(99)], (99, False)),
        (rule(), [report(100)], (100, True)),
        (rule(1), [report(0)], (0, False)),
        (rule(1), [report(1)], (100, True)),
        (rule(80), [report(79)], (79, False)),
        (rule(80), [report(80)], (100, True)),
        (rule(80), [report(81)], (100, True)),
        (rule(80), [report(60), report(20)], (60, False)),
        (rule(80), [report(80), report(20)], (100, True)),
        (rule(100, 6000), [report(100)], (99, False)),
        (rule(100, 6000), [report(100, **FAILED)], (99, False)),
        (rule(100, 6000), [report(100, **PASSED)], (100, True)),
        (rule(100, 6000), [report(99, **PASSED)], (99, False)),
        (rule(80, 6000), [report(90, **FAILED)], (90, False)),
        (rule(100, 6000), [report(100, **FAILED), report(**PASSED)], (100, True)),
        (rule(100, 6000), [report(**PASSED), report(100, **FAILED)], (100, True)),
        (rule(100, 0), [report(100)], (99, False)),
        (rule(100, 0), [report(100, score=0, max_score=POINT)], (100, True)),
        (rule(), [report(completes=True)], (100, True)),
        (rule(100, 6000), [report(completes=True, **PASSED)], (100, True)),
        (rule(100, 6000), [report(**PASSED), report(completes=True)], (100, True)),
    ],
)
def test_a_record_completes_once_its_rule_is_met(
    content: ContentRule, updates: list[Update], expected: tuple[int, bool]
) -> None:
    assert state(fold(updates, content)) == expected


@pytest.mark.parametrize("score", [{}, FAILED])
def test_what_has_not_passed_cannot_be_completed(score: dict[str, Any]) -> None:
    with pytest.raises(CriteriaNotMet):
        fold([report(100, **score), report(completes=True)], rule(100, 6000))


def test_a_completed_record_is_not_asked_for_a_passing_score_again() -> None:
    completed = fold([report(100)], rule())
    assert apply(completed, report(at=LATER, completes=True), rule(100, 6000)).completed_at == NOON


def test_stored_values_that_fulfil_a_rule_complete_with_any_update() -> None:
    waiting = fold([report(70)], rule())
    assert state(waiting) == (70, False)
    assert state(apply(waiting, report(), rule(70))) == (100, True)


def test_a_completed_record_stays_completed_when_the_rule_becomes_harder() -> None:
    completed = fold([report(50)], rule(50))
    assert state(apply(completed, report(60), rule(100, 10_000))) == (100, True)


def test_dates_are_the_earliest_the_latest_and_that_of_the_first_report_that_completes() -> None:
    early, middle, late = (NOON + timedelta(minutes=minute) for minute in range(3))
    record = fold([report(10, at=early), report(100, at=late), report(100, at=middle)], rule())
    assert (record.started_at, record.completed_at, record.last_activity_at) == (early, middle, late)


@pytest.mark.parametrize(
    ("content", "updates", "minute"),
    [
        (rule(), [report(100, at=MINUTES[9]), report(100, at=MINUTES[4])], 4),
        (rule(), [report(100, at=MINUTES[4]), report(100, at=MINUTES[9])], 4),
        (rule(80), [report(80, at=MINUTES[7]), report(79, at=MINUTES[1])], 7),
        (rule(100, 6000), [report(100, at=MINUTES[2]), report(at=MINUTES[5], **PASSED)], 5),
        (rule(100, 6000), [report(at=MINUTES[5], **PASSED), report(100, at=MINUTES[2])], 5),
        (rule(100, 6000), [report(at=MINUTES[2], **PASSED), report(100, at=MINUTES[5])], 5),
        (rule(100, 6000), [report(100, at=MINUTES[6], **PASSED), report(at=MINUTES[3], **PASSED)], 6),
        (rule(100, 6000), [report(100, MINUTES[6], **PASSED), report(100, MINUTES[3], **FAILED)], 6),
        (rule(), [report(100, at=MINUTES[6]), report(at=MINUTES[3], completes=True)], 3),
        (rule(), [report(at=MINUTES[6], completes=True), report(100, at=MINUTES[3])], 3),
        (rule(), [report(at=MINUTES[6], completes=True), report(40, at=MINUTES[3])], 6),
        (rule(100, 6000), [report(at=MINUTES[2], **PASSED), report(at=MINUTES[6], completes=True)], 6),
    ],
)
def test_a_completion_is_dated_by_the_earliest_reports_that_fulfil_the_rule(
    content: ContentRule, updates: list[Update], minute: int
) -> None:
    assert fold(updates, content).completed_at == MINUTES[minute]


@pytest.mark.parametrize(
    ("stored", "content", "update", "minute"),
    [
        # An update that reaches nothing new leaves a completion under another rule as it is.
        ({"completed_at": MINUTES[8], "reached_at": MINUTES[2]}, rule(50), report(), 8),
        ({"completed_at": MINUTES[8], "reached_at": MINUTES[2]}, rule(50, 6000), report(100, at=MINUTES[1]), 8),
        # Where no date was kept, the completion or the last activity is the latest it can be.
        ({"completed_at": MINUTES[8]}, rule(50), report(60, at=MINUTES[3]), 3),
        ({"completed_at": MINUTES[8]}, rule(50), report(60, at=MINUTES[9]), 8),
        ({"furthest_percentage": 60}, rule(50, 6000), report(at=MINUTES[3], **PASSED), 5),
        ({"furthest_percentage": 60}, rule(50, 6000), report(at=MINUTES[7], **PASSED), 7),
        # A date under an easier rule is not that of the rule as it stands.
        ({"furthest_percentage": 60, "reached_at": MINUTES[1]}, rule(80), report(80, at=MINUTES[7]), 7),
        # A relaxed rule has completed the record; a report from before moves that earlier.
        (
            {"completed_at": MINUTES[8], "reached_at": MINUTES[2], **FAILED},
            rule(50, 5000),
            report(0, MINUTES[4], **FAILED),
            4,
        ),
    ],
)
def test_what_was_stored_under_another_rule_or_without_dates_is_dated_at_the_latest(
    stored: dict[str, Any], content: ContentRule, update: Update, minute: int
) -> None:
    record = start(report(at=MINUTES[5]))._replace(**stored)
    assert apply(record, update, content).completed_at == MINUTES[minute]


@pytest.mark.parametrize(
    ("reported", "position"),
    [
        ([("a", NOON), ("b", LATER)], "b"),
        ([("b", LATER), ("a", NOON)], "b"),
        ([("a", NOON), ("b", NOON)], "b"),
        ([("b", NOON), (None, LATER)], "b"),
        ([("", NOON)], ""),
        ([(None, NOON)], None),
    ],
)
def test_the_position_is_that_of_the_latest_event_and_of_equal_times_the_one_applied_later(
    reported: list[tuple[str | None, datetime]], position: str | None
) -> None:
    assert fold([report(at=at, position=given) for given, at in reported], rule()).position == position


def test_time_accumulates_also_after_completion() -> None:
    record = fold([report(time_spent_seconds=60), report(100, time_spent_seconds=5)], rule())
    assert apply(record, report(time_spent_seconds=14_400), rule()).time_spent_seconds == 14_465


@pytest.mark.parametrize(
    ("totals", "added"),
    [([60], [60]), ([60, 60], [60, 0]), ([60, 90, 80, 91], [60, 30, 0, 1]), ([0, 5], [0, 5]), ([86_400], [86_400])],
)
def test_a_session_adds_what_its_total_is_more_than_the_largest_so_far(totals: list[int], added: list[int]) -> None:
    session, found = None, []
    for minute, seconds in enumerate(totals):
        session, more = sit(session, report(time_spent_seconds=seconds, session="s"), MINUTES[minute])
        found.append(more)
        assert session == Session("sam", "intro", "s", max(totals[: minute + 1]), MINUTES[minute])
    assert found == added


@pytest.mark.parametrize(
    ("pairs", "best"),
    [
        ([(None, None)], (None, None)),
        ([(None, None), (5, 10)], (5, 10)),
        ([(5, 10), (None, None)], (5, 10)),
        ([(5, 10), (6, 10)], (6, 10)),
        ([(6, 10), (5, 10)], (6, 10)),
        ([(90, 100), (10, 10)], (10, 10)),
        ([(5, 10), (50, 100)], (50, 100)),
        ([(50, 100), (5, 10)], (50, 100)),
        ([(0, 10), (0, 100)], (0, 100)),
        ([(9_999_999_998, 9_999_999_999), (9_999_999_999, 10_000_000_000)], (9_999_999_999, 10_000_000_000)),
        ([(9_999_999_999, 10_000_000_000), (9_999_999_998, 9_999_999_999)], (9_999_999_999, 10_000_000_000)),
    ],
)
def test_the_best_ratio_is_kept_and_of_equal_ratios_the_larger_maximum(
    pairs: list[tuple[int | None, int | None]], best: tuple[int | None, int | None]
) -> None:
    kept: tuple[int | None, int | None] = (None, None)
    for score, max_score in pairs:
        kept = best_score(*kept, score, max_score)
    assert kept == best


@pytest.mark.parametrize(
    ("score", "max_score", "passing_score", "passed"),
    [
        (None, None, None, True),
        (0, 10, None, True),
        (None, None, 0, False),
        (0, 10, 0, True),
        (59_9999, 100_0000, 6000, False),
        (60_0000, 100_0000, 6000, True),
        (2, 3, 6666, True),
        (2, 3, 6667, False),
        (9_999_999_999, 10_000_000_000, 10_000, False),
        (10_000_000_000, 10_000_000_000, 10_000, True),
    ],
)
def test_a_score_passes_at_the_passing_score_and_not_just_below_it(
    score: int | None, max_score: int | None, passing_score: int | None, passed: bool
) -> None:
    assert is_passed(score, max_score, passing_score) is passed


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"),
    [
        (0, 0, None),
        (5, 0, None),
        (0, 3, 0.0),
        (100, 3, 33.33),
        (100 * 2, 3, 66.66),
        (100 * 199, 200, 99.5),
        (100 * 99_999, 100_000, 99.99),
        (100 * 199_999, 200_000, 99.99),
        (100 * 200, 200, 100.0),
        (1, 10_001, 0.0),
        (10**18 - 1, 10**16, 99.99),
    ],
)
def test_a_quotient_is_rounded_down_to_two_decimals(numerator: int, denominator: int, expected: float | None) -> None:
    assert rounded_down(numerator, denominator) == expected


@pytest.mark.parametrize(
    ("weighted_sum", "total_weight", "status", "expected"),
    [
        (0, 4, ACTIVE, 0.0),
        (200, 3, ACTIVE, 66.66),
        (199 * 100 + 99, 200, DROPPED, 99.99),
        (300, 3, COMPLETED, 100.0),
        (200, 4, COMPLETED, 50.0),
        (0, 0, ACTIVE, 0.0),
        (0, 0, PAUSED, 0.0),
        (0, 0, DROPPED, 0.0),
        (0, 0, COMPLETED, 100.0),
    ],
)
def test_a_module_is_at_100_only_when_complete_and_without_weight_where_it_was_completed(
    weighted_sum: int, total_weight: int, status: str, expected: float
) -> None:
    given = enrollment(status)._replace(weighted_sum=weighted_sum)
    assert module_percentage(given, Denominators(total_weight, total_weight)) == expected


@pytest.mark.parametrize(
    ("score", "max_score", "expected"),
    [(None, None, None), (0, 1, 0.0), (2, 3, 66.66), (99_9999, 100_0000, 99.99), (7, 7, 100.0)],
)
def test_a_score_is_shown_in_per_cent_of_its_maximum(
    score: int | None, max_score: int | None, expected: float | None
) -> None:
    assert score_percentage(score, max_score) == expected


@pytest.mark.parametrize(
    ("status", "completed", "total", "expected"),
    [
        (ACTIVE, 1, 2, ACTIVE),
        (ACTIVE, 2, 2, COMPLETED),
        (PAUSED, 1, 2, PAUSED),
        (PAUSED, 2, 2, COMPLETED),
        (DROPPED, 2, 2, DROPPED),
        (ACTIVE, 0, 0, ACTIVE),
        (PAUSED, 0, 0, PAUSED),
    ],
)
def test_an_enrollment_completes_with_all_counted_contents_unless_it_is_dropped(
    status: str, completed: int, total: int, expected: str
) -> None:
    settled = settle(enrollment(status, completed), Denominators(total, total), LATER)
    assert (settled.status, settled.completed_at) == (expected, LATER if expected == COMPLETED else None)


@pytest.mark.parametrize("completed", [1, 2])
def test_the_completion_of_an_enrollment_is_kept_when_contents_are_added(completed: int) -> None:
    before = enrollment(COMPLETED, completed)
    assert settle(before, Denominators(2, 2), LATER) == before


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        (ACTIVE, None, ACTIVE),
        (ACTIVE, PAUSED, PAUSED),
        (PAUSED, DROPPED, DROPPED),
        (DROPPED, ACTIVE, ACTIVE),
        (COMPLETED, DROPPED, COMPLETED),
    ],
)
def test_only_a_completed_enrollment_keeps_its_status(before: str, given: str | None, after: str) -> None:
    changed = change(enrollment(before), given, LATER, None, None, LATER)
    assert (changed.status, changed.enrolled_at) == (after, LATER)


def test_an_enrollment_whose_date_is_not_given_keeps_it() -> None:
    assert change(enrollment(), PAUSED, None, None, None, LATER).enrolled_at == NOON


@pytest.mark.parametrize(
    ("status", "given", "date", "expected"),
    [
        (ACTIVE, COMPLETED, LATER, (COMPLETED, LATER, True)),
        (DROPPED, COMPLETED, LATER, (COMPLETED, LATER, True)),
        (PAUSED, COMPLETED, None, (COMPLETED, MINUTES[9], True)),
        (COMPLETED, COMPLETED, LATER, (COMPLETED, LATER, True)),
        (COMPLETED, None, LATER, (COMPLETED, LATER, True)),
        # What was read may be sent back, and nothing happens.
        (COMPLETED, COMPLETED, NOON, (COMPLETED, NOON, False)),
        (COMPLETED, COMPLETED, None, (COMPLETED, NOON, False)),
        (COMPLETED, DROPPED, None, (COMPLETED, NOON, False)),
        # A date alone completes nothing.
        (ACTIVE, None, LATER, (ACTIVE, None, False)),
        (ACTIVE, PAUSED, LATER, (PAUSED, None, False)),
    ],
)
def test_the_status_completed_gives_credit_with_its_date(
    status: str, given: str | None, date: datetime | None, expected: tuple[str, datetime | None, bool]
) -> None:
    changed = change(enrollment(status), given, None, None, date, MINUTES[9])
    assert (changed.status, changed.completed_at, changed.credited) == expected


def test_reports_move_the_date_of_a_completion_earlier_and_that_of_a_credit_never() -> None:
    completed, earlier = enrollment(COMPLETED), NOON - timedelta(days=1)
    assert complete(completed, [NOON], [earlier]).completed_at == earlier
    assert complete(completed, [NOON, LATER], [earlier, LATER]).completed_at == earlier
    assert complete(completed._replace(credited=True), [NOON], [earlier]).completed_at == NOON
    assert restart(completed._replace(credited=True)) == enrollment()


@pytest.mark.parametrize("kept", [{"counted": False}, {"enrolled_by_update": True}, {"status": PAUSED}])
def test_an_enrollment_that_starts_again_is_still_the_same_enrollment(kept: dict[str, Any]) -> None:
    assert restart(enrollment(completed_contents=1)._replace(**kept)) == enrollment()._replace(**kept)


@pytest.mark.parametrize(
    ("totals", "added", "seconds"),
    [([60], [60], 60), ([60, 60], [60, 0], 60), ([60, 90, 30, 100], [60, 30, 0, 10], 100), ([0], [0], 0)],
)
def test_of_a_session_the_largest_total_counts(totals: list[int], added: list[int], seconds: int) -> None:
    session, gains = None, []
    for place, total in enumerate(totals):
        session, gain = sit(session, report(time_spent_seconds=total, session="monday"), MINUTES[place])
        gains.append(gain)
    assert gains == added
    assert session == Session("sam", "intro", "monday", seconds, MINUTES[len(totals) - 1])


def done(at: datetime = NOON, **others: Any) -> Record:
    return start(report(at=at))._replace(furthest_percentage=100, completed_at=at, reached_at=at, **others)


@pytest.mark.parametrize(
    ("record", "content", "given", "expected"),
    [
        (done(), rule(), {"progress_percentage": 40}, (40, None)),
        (done(), rule(40), {"progress_percentage": 40}, (100, NOON)),
        (done(), rule(), {"time_spent_seconds": 5}, (100, NOON)),
        (done(), rule(), {"position": "end"}, (100, NOON)),
        (done(**PASSED), rule(100, 6000), FAILED, (99, None)),
        (done(**PASSED), rule(100, 6000), {"score": None, "max_score": None}, (99, None)),
        (done(**FAILED), rule(100, 6000), {"time_spent_seconds": 5}, (100, NOON)),
        (start(report(40)), rule(), {"progress_percentage": 100}, (100, LATER)),
        (start(report())._replace(furthest_percentage=100), rule(100, 6000), PASSED, (100, LATER)),
        (start(report())._replace(**PASSED), rule(100, 6000), {"progress_percentage": 100}, (100, LATER)),
        (start(report()), rule(100, 6000), {"progress_percentage": 100}, (99, None)),
        # Completed by request, and far from the threshold.
        (done()._replace(furthest_percentage=10), rule(), {"time_spent_seconds": 5}, (100, NOON)),
        (done()._replace(furthest_percentage=10), rule(), FAILED, (10, None)),
        (done(excused_at=NOON), rule(), {"progress_percentage": 40}, (100, None)),
    ],
)
def test_a_corrected_record_is_completed_as_the_rule_says(
    record: Record, content: ContentRule, given: dict[str, Any], expected: tuple[int, datetime | None]
) -> None:
    corrected = correct(record, given, content, LATER)
    assert (corrected.progress_percentage, corrected.completed_at) == expected
    kept = {"id", "user_id", "content_id", "started_at", "last_activity_at", "excused_at"}
    assert {getattr(corrected, name) == getattr(record, name) for name in kept} == {True}


def test_a_record_that_was_corrected_downwards_completes_anew() -> None:
    corrected = correct(done(), {"progress_percentage": 40}, rule(), MINUTES[5])
    assert apply(corrected, report(100, at=MINUTES[3]), rule()).completed_at == MINUTES[3]
    assert apply(corrected, report(50, at=MINUTES[7]), rule()).completed_at is None


@pytest.mark.parametrize(
    ("completed_at", "excused_at", "expected"),
    [
        (None, None, (60, None)),
        (NOON, None, (100, NOON)),
        (None, LATER, (100, LATER)),
        (NOON, LATER, (100, NOON)),
        (LATER, NOON, (100, NOON)),
    ],
)
def test_an_excused_record_is_done_as_well_as_a_completed_one(
    completed_at: datetime | None, excused_at: datetime | None, expected: tuple[int, datetime | None]
) -> None:
    record = start(report())._replace(furthest_percentage=60, completed_at=completed_at, excused_at=excused_at)
    assert (record.progress_percentage, record.done_at) == expected


def test_what_only_a_relaxed_rule_has_completed_keeps_that_date_when_learners_are_merged() -> None:
    relaxed = start(report())._replace(furthest_percentage=100, reached_at=MINUTES[2], completed_at=MINUTES[8])
    opened = start(report(at=MINUTES[4]))
    for merged in (merge(relaxed, opened, rule()), merge(opened, relaxed, rule())):
        assert merged.completed_at == MINUTES[8]
    assert merge(relaxed, done(MINUTES[1]), rule()).completed_at == MINUTES[1]


@pytest.mark.parametrize(
    ("excused_at", "others", "merged"),
    [(NOON, LATER, NOON), (LATER, NOON, NOON), (None, LATER, LATER), (LATER, None, LATER), (None, None, None)],
)
def test_of_two_excuses_the_earlier_is_that_of_merged_learners(
    excused_at: datetime | None, others: datetime | None, merged: datetime | None
) -> None:
    record, other = (start(report())._replace(excused_at=one) for one in (excused_at, others))
    assert merge(record, other, rule()).excused_at == merged


@pytest.mark.parametrize(
    ("seconds", "others", "counted_twice", "merged"),
    [(10, 20, 0, 30), (10, 20, 10, 20), (10, 20, 4, 26), (0, 0, 60, 0), (5, 60, 60, 60)],
)
def test_merged_time_leaves_out_what_was_told_twice_and_nothing_else(
    seconds: int, others: int, counted_twice: int, merged: int
) -> None:
    record, other = (start(report())._replace(time_spent_seconds=one) for one in (seconds, others))
    assert merge(record, other, rule(), counted_twice).time_spent_seconds == merged


BY_UPDATE: dict[str, Any] = {"enrolled_by_update": True}


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        ({}, {"status": DROPPED}, (ACTIVE, None, NOON)),
        ({"status": PAUSED}, {}, (PAUSED, None, NOON)),
        ({"enrolled_at": LATER}, {}, (ACTIVE, None, LATER)),
        ({"enrolled_at": LATER, **BY_UPDATE}, BY_UPDATE, (ACTIVE, None, NOON)),
        ({"enrolled_at": NOON, **BY_UPDATE}, {"enrolled_at": LATER}, (ACTIVE, None, LATER)),
        ({"status": DROPPED}, {"status": COMPLETED, "completed_at": NOON}, (COMPLETED, NOON, NOON)),
        (
            {"status": COMPLETED, "completed_at": LATER},
            {"status": COMPLETED, "completed_at": MINUTES[7]},
            (COMPLETED, MINUTES[7], NOON),
        ),
        (
            {"status": COMPLETED, "completed_at": MINUTES[7]},
            {"status": COMPLETED, "completed_at": LATER, "credited": True},
            (COMPLETED, LATER, NOON),
        ),
        # Completed by updates, at the last of its contents: the other's updates may move that earlier.
        ({"status": COMPLETED, "completed_at": MINUTES[9]}, {}, (COMPLETED, MINUTES[3], NOON)),
        ({"status": COMPLETED, "completed_at": MINUTES[8]}, {}, (COMPLETED, MINUTES[8], NOON)),
    ],
)
def test_of_two_enrollments_the_completion_and_the_date_of_the_platform_stay(
    mine: dict[str, Any], other: dict[str, Any], expected: tuple[str, datetime | None, datetime]
) -> None:
    joined = join(enrollment()._replace(**mine), enrollment()._replace(**other), [MINUTES[9]], [], [MINUTES[3]])
    assert (joined.status, joined.completed_at, joined.enrolled_at) == expected
    assert joined.credited == ("credited" in other)


# Positions are tied to times: of two positions with the same time, the order alone decides.
scores = st.tuples(st.integers(0, 6), st.integers(1, 6) | st.just(10**10)).filter(lambda pair: pair[0] <= pair[1])
contents = st.builds(
    rule,
    st.integers(1, 100),
    st.none() | st.sampled_from([0, 5000, 6666, 10_000]),
    weight=st.integers(0, 3),
    retired=st.booleans(),
)


@st.composite
def reports(draw: st.DrawFn, content_ids: Sequence[str] = ("intro",), *, timed: bool = False) -> Update:
    minute = draw(st.integers(0, 4))
    score, max_score = draw(st.just((None, None)) | scores)
    session = None if timed else draw(st.sampled_from([None, "s", "t"]))
    return Update(
        "sam",
        draw(st.sampled_from(content_ids)),
        NOON + timedelta(minutes=minute),
        draw(st.integers(0, 100) | st.sampled_from([0, 99, 100])),
        draw(st.integers(0, 14_400)) if timed or session else 0,
        score,
        max_score,
        draw(st.sampled_from([None, f"minute {minute}"])),
        draw(st.booleans()) if timed else False,
        session,
    )


def parts(update: Update) -> Iterable[Update]:
    """Say the same in several updates."""
    silent = Update(update.user_id, update.content_id, update.occurred_at)
    yield silent._replace(progress_percentage=update.progress_percentage)
    yield silent._replace(score=update.score, max_score=update.max_score)
    yield silent._replace(position=update.position)
    yield silent._replace(session=update.session, time_spent_seconds=update.time_spent_seconds)


@given(contents, st.lists(reports(), min_size=1, max_size=6), st.data())
def test_any_order_repetition_and_split_of_the_same_updates_ends_in_the_same_record(
    content: ContentRule, updates: list[Update], data: st.DataObject
) -> None:
    repeated = updates + data.draw(st.lists(st.sampled_from(updates), max_size=3))
    split = [part for update in repeated for part in (parts(update) if data.draw(st.booleans()) else [update])]
    first, second = fold(updates, content), fold(data.draw(st.permutations(split)), content)
    assert first == second
    longest = {one.session: 0 for one in updates if one.session}
    for one in updates:
        if one.session:
            longest[one.session] = max(longest[one.session], one.time_spent_seconds)
    assert first.time_spent_seconds == sum(longest.values())


@given(contents, st.lists(reports(), min_size=1, max_size=6))
def test_a_record_is_what_its_updates_say_together(content: ContentRule, updates: list[Update]) -> None:
    furthest = max(update.progress_percentage for update in updates)
    ratios = [Fraction(one.score, one.max_score) for one in updates if one.score is not None and one.max_score]
    passed = content.passing_score is None or any(10_000 * ratio >= content.passing_score for ratio in ratios)
    completed = passed and furthest >= content.completion_threshold
    record = fold(updates, content)
    assert state(record) == (100 if completed else min(furthest, 99), completed)
    assert score_percentage(record.score, record.max_score) == (
        float(int(10_000 * max(ratios)) / 100) if ratios else None
    )


@given(st.lists(st.tuples(reports(timed=True), contents), min_size=1))
def test_progress_never_falls_and_completion_happens_once_whatever_is_reported_under_whatever_rules(
    steps: list[tuple[Update, ContentRule]],
) -> None:
    record = start(steps[0][0])
    completions = 0
    for update, content in steps:
        try:
            after = apply(record, update, content)
        except CriteriaNotMet:
            continue
        assert after.progress_percentage >= record.progress_percentage
        assert (after.progress_percentage == 100) == (after.completed_at is not None)
        assert record.completed_at is None or (after.completed_at and after.completed_at <= record.completed_at)
        completions += completes(record, after)
        record = after
    assert completions == (record.completed_at is not None)


@given(
    st.lists(reports(["intro", "quiz", "extra"], timed=True)),
    st.fixed_dictionaries({"intro": contents, "quiz": contents, "extra": contents}),
)
def test_the_totals_of_an_enrollment_are_those_of_its_records(
    updates: list[Update], catalog: dict[str, ContentRule]
) -> None:
    counted = {content_id: one for content_id, one in catalog.items() if one.weight and not one.retired}
    module = Denominators(sum(one.weight for one in counted.values()), len(counted))
    records: dict[str, Record] = {}
    total = enrollment()
    applied = []
    for update in updates:
        content = catalog[update.content_id]
        before = records.get(update.content_id) or start(update)
        try:
            after = apply(before, update, content)
        except CriteriaNotMet:
            continue
        records[update.content_id] = after
        applied.append(update)
        total = settle(count(total, before, after, update, content), module, update.occurred_at)
    last = max(reversed(applied), key=lambda update: update.occurred_at, default=None)
    done = [content_id for content_id in counted if content_id in records and records[content_id].completed_at]
    assert total.weighted_sum == sum(
        content.weight * records[content_id].progress_percentage
        for content_id, content in counted.items()
        if content_id in records
    )
    assert total.completed_contents == len(done)
    assert total.time_spent_seconds == sum(record.time_spent_seconds for record in records.values())
    assert total.last_activity_at == (last.occurred_at if last else None)
    assert total.last_content_id == (last.content_id if last else None)
    assert (total.status == COMPLETED) == (total.completed_at is not None) == (0 < len(counted) == len(done))
    assert (module_percentage(total, module) == 100) == (total.status == COMPLETED)


def heed_all(lines: Iterable[tuple[datetime, dict[str, Any]]]) -> Enrollment:
    told, found = LineDates("sam", "algebra"), enrollment()
    for at, line in lines:
        told, outdated = heed(told, line, at)
        found = change(found, **line | dict.fromkeys(outdated), now=LATER)
    return found


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    status = draw(st.sampled_from([None, ACTIVE, PAUSED, DROPPED, COMPLETED]))
    return {
        "status": status,
        "enrolled_at": draw(st.none() | st.sampled_from(MINUTES)),
        "counted": draw(st.sampled_from([None, True, False])),
        "completed_at": draw(st.sampled_from(MINUTES)) if status == COMPLETED else None,
    }


@given(st.dictionaries(st.sampled_from(MINUTES), lines()), st.data())
def test_imported_lines_in_any_order_are_what_they_are_in_the_order_of_their_dates(
    dated: dict[datetime, dict[str, Any]], data: st.DataObject
) -> None:
    in_order = sorted(dated.items(), key=lambda line: line[0])
    expected = enrollment()
    for _, line in in_order:
        expected = change(expected, **line, now=LATER)
    assert heed_all(in_order) == expected
    again = data.draw(st.permutations(in_order))
    assert heed_all([*again, *again]) == expected


class Studies:
    """What is stored of a learner in a module, as updates make it, without a database."""

    def __init__(self, catalog: Mapping[str, ContentRule]) -> None:
        self.catalog = catalog
        counted = [one for one in catalog.values() if one.counted_weight]
        self.module = Denominators(sum(one.weight for one in counted), len(counted))
        self.records: dict[str, Record] = {}
        self.sessions: dict[tuple[str, str], Session] = {}
        self.enrollment: Enrollment | None = None

    def report(self, update: Update) -> None:
        content, at = self.catalog[update.content_id], update.occurred_at
        if update.session is not None:
            key = update.content_id, update.session
            self.sessions[key], seconds = sit(self.sessions.get(key), update, NOON)
            update = update._replace(time_spent_seconds=seconds)
        done, before = self.done, self.records.get(update.content_id) or start(update)
        after = self.records[update.content_id] = apply(before, update, content)
        known = self.enrollment or Enrollment("sam", "algebra", ACTIVE, at, enrolled_by_update=True)
        counted = count(known, before, after, update, content)
        if counted.completed_at is not None or is_complete(counted, self.module):
            counted = complete(counted, done, self.done)
        self.enrollment = counted

    @property
    def done(self) -> list[datetime]:
        return dates_done(self.records.values(), self.catalog)

    def merged(self, other: "Studies") -> "Studies":
        merged = Studies(self.catalog)
        for content_id in self.records.keys() | other.records.keys():
            both = [one.records[content_id] for one in (self, other) if content_id in one.records]
            twice = sum(
                min(session.time_spent_seconds, self.sessions[key].time_spent_seconds)
                for key, session in other.sessions.items()
                if key[0] == content_id and key in self.sessions
            )
            content = self.catalog[content_id]
            merged.records[content_id] = both[0] if len(both) == 1 else merge(both[0], both[1], content, twice)
        totals = [(key, one.time_spent_seconds) for studies in (self, other) for key, one in studies.sessions.items()]
        for key, total in sorted(totals, key=lambda one: one[1]):
            merged.sessions[key] = Session("sam", *key, total, NOON)
        joined = self.enrollment or other.enrollment
        if self.enrollment and other.enrollment:
            joined = join(self.enrollment, other.enrollment, self.done, other.done, merged.done)
        if joined:
            joined = recount(joined, merged.records.values(), self.catalog)
            merged.enrollment = complete(joined, (), merged.done) if is_complete(joined, self.module) else joined
        return merged

    @property
    def shown(self) -> Any:
        """Everything but which content was the last, if several have the latest time."""
        sessions = {key: one.time_spent_seconds for key, one in self.sessions.items()}
        return self.records, sessions, self.enrollment and self.enrollment._replace(last_content_id=None)


sittings = st.lists(
    st.builds(
        lambda update, seconds, session: update._replace(time_spent_seconds=seconds, session=session),
        reports(["intro", "quiz", "extra"]),
        st.integers(0, 100),
        st.sampled_from([None, "monday", "tuesday"]),
    ),
    max_size=8,
)
catalogs = st.fixed_dictionaries({"intro": contents, "quiz": contents, "extra": contents})


@given(catalogs, sittings, st.data())
def test_learners_who_are_merged_are_as_if_every_update_had_been_of_one_learner(
    catalog: dict[str, ContentRule], updates: list[Update], data: st.DataObject
) -> None:
    alone, learners = Studies(catalog), [Studies(catalog) for _ in range(3)]
    for update in updates:
        alone.report(update)
        learners[data.draw(st.integers(0, 2))].report(update)
    first, second, third = learners

    assert first.merged(second).merged(third).shown == alone.shown
    assert third.merged(second.merged(first)).shown == alone.shown


@given(catalogs, sittings, st.data())
def test_the_totals_that_updates_keep_are_those_of_a_recount(
    catalog: dict[str, ContentRule], updates: list[Update], data: st.DataObject
) -> None:
    studies = Studies(catalog)
    for update in updates:
        studies.report(update)
        assert studies.enrollment
        assert studies.enrollment == recount(studies.enrollment, studies.records.values(), catalog)
        if data.draw(st.booleans()):
            content_id = data.draw(st.sampled_from(sorted(studies.records)))
            excused = studies.records[content_id]._replace(excused_at=data.draw(st.sampled_from([None, NOON])))
            studies.records[content_id] = excused
            studies.enrollment = recount(studies.enrollment, studies.records.values(), catalog)
            counted = {key for key, one in catalog.items() if one.counted_weight}
            done = {key for key, one in studies.records.items() if one.done_at}
            assert studies.enrollment.completed_contents == len(counted & done)
            assert studies.enrollment.time_spent_seconds == sum(
                one.time_spent_seconds for one in studies.records.values()
            )


@given(catalogs, sittings)
def test_contents_share_a_module_and_what_they_contribute_adds_up_to_its_exact_percentage(
    catalog: dict[str, ContentRule], updates: list[Update]
) -> None:
    studies = Studies(catalog)
    for update in updates:
        studies.report(update)
    module, weighted_sum = studies.module, studies.enrollment.weighted_sum if studies.enrollment else 0
    shares = [share(one) for one in catalog.values()]
    contributions = [contributed(studies.records.get(key), one) for key, one in catalog.items()]

    assert sum(shares) == 100 * module.total_weight
    assert sum(contributions) == weighted_sum
    assert all(part <= most for part, most in zip(contributions, shares, strict=True))
    for key, content in catalog.items():
        record = studies.records.get(key)
        percentage = record.progress_percentage if record else 0
        assert contributed(record, content) == (0 if content.retired else content.weight * percentage)
    shown = sum(Fraction(round(100 * part_of_module(one, module)), 100) for one in contributions)
    exact = Fraction(weighted_sum, module.total_weight or 1)
    assert 0 <= exact - shown < Fraction(len(catalog), 100)


@given(contents, contents, st.lists(reports(timed=True), max_size=6), st.booleans())
def test_what_is_missing_is_just_what_an_update_must_give_to_complete_a_record(
    known: ContentRule, content: ContentRule, updates: list[Update], excused: bool
) -> None:
    record = None
    for update in updates:
        if not update.completes:
            record = apply(record or start(update), update, known)
    if record and excused:
        record = record._replace(excused_at=NOON)
    named = missing(record, content)
    if record is not None and record.done_at is not None:
        assert named == []
        return
    assert named == sorted(named)
    just_enough: dict[str, dict[str, Any]] = {"progress": {"progress_percentage": content.completion_threshold}}
    if content.passing_score is not None:
        just_enough["score"] = {"score": content.passing_score, "max_score": 10_000}
    for given_parts in chain.from_iterable(combinations(just_enough, size) for size in range(len(just_enough) + 1)):
        update = report()
        for part in given_parts:
            update = update._replace(**just_enough[part])
        after = apply(record or start(update), update, content)
        assert (after.completed_at is not None) == (set(named) <= set(given_parts))
        assert (missing(after, content) == []) == (after.completed_at is not None)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_rounding_down_loses_less_than_a_hundredth_and_never_adds(numerator: int, denominator: int) -> None:
    shown = rounded_down(numerator, denominator)
    assert shown is not None
    hundredths = round(shown * 100)
    assert shown == hundredths / 100
    assert 0 <= Fraction(numerator, denominator) - Fraction(hundredths, 100) < Fraction(1, 100)

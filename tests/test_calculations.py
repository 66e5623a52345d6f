"""The rules of progress, without an application: tables of boundaries, and what holds for any updates."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
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
    completes,
    count,
    heed,
    is_passed,
    module_percentage,
    rounded_down,
    score_percentage,
    settle,
    sit,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
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


MINUTES = [NOON + timedelta(minutes=minute) for minute in range(10)]


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
    assert total.last_activity_at == max((record.last_activity_at for record in records.values()), default=None)
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


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_rounding_down_loses_less_than_a_hundredth_and_never_adds(numerator: int, denominator: int) -> None:
    shown = rounded_down(numerator, denominator)
    assert shown is not None
    hundredths = round(shown * 100)
    assert shown == hundredths / 100
    assert 0 <= Fraction(numerator, denominator) - Fraction(hundredths, 100) < Fraction(1, 100)

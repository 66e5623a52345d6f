"""In which groups of a module a learner counts, and with which numbers: the rule that keeps every statistic.

A statistic is a sum over learners. Each enrollment, record and day of activity counts in a few groups; a change takes
out its earlier numbers and adds its new numbers. `recount` has the same three functions in SQL, in the same order;
docs/architecture.md ("Tallies") has a table of the groups and of the statistics that they make up.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from operator import add, sub
from typing import NamedTuple

from progress_service import calculations
from progress_service.calculations import ACTIVE, DROPPED, PAUSED, ActivityDay, Denominators, Enrollment, Record

KINDS = ("status", "percentage", "content", "excused", "last_week", "last_day", "day")
STATUS, PERCENTAGE, CONTENT, EXCUSED, LAST_WEEK, LAST_DAY, DAY = KINDS


class Counts(NamedTuple):
    """The sums over the learners of a group; the kind of the group decides which of them are kept."""

    learners: int = 0
    started: int = 0
    completed: int = 0
    enrollments_completed: int = 0
    time_spent_seconds: int = 0
    weighted_sum: int = 0
    scored: int = 0
    score_hundredths: int = 0


class Group(NamedTuple):
    """Learners of a module with something in common, which the item names."""

    module_id: str
    kind: str
    item: str


Share = tuple[Group, Counts]


class Changes(dict[Group, Counts]):
    """The numbers that each group gains or loses."""

    def replace(self, before: Iterable[Share], after: Iterable[Share]) -> None:
        """Take out the earlier shares and add the new ones."""
        for group, counts in before:
            self[group] = Counts._make(map(sub, self.get(group, NOTHING), counts))
        for group, counts in after:
            self[group] = Counts._make(map(add, self.get(group, NOTHING), counts))


NOTHING = Counts()


def of_enrollment(enrollment: Enrollment, module: Denominators) -> Iterator[Share]:
    """Yield the groups in which an enrollment counts."""
    module_id, status = enrollment.module_id, enrollment.status
    yield (
        Group(module_id, STATUS, status),
        Counts(
            learners=1,
            started=enrollment.last_activity_at is not None,
            time_spent_seconds=enrollment.time_spent_seconds,
            weighted_sum=enrollment.weighted_sum,
        ),
    )
    if status != DROPPED:
        percentage = calculations.whole_percentage(enrollment.weighted_sum, module.total_weight)
        yield Group(module_id, PERCENTAGE, str(percentage)), Counts(learners=1)
    if status in (ACTIVE, PAUSED) and enrollment.last_activity_at is not None and not enrollment.last_is_excused:
        last, content_id = enrollment.last_activity_at, enrollment.last_content_id
        yield Group(module_id, LAST_WEEK, item_of(calculations.week_of(last), content_id)), Counts(learners=1)
        yield Group(module_id, LAST_DAY, item_of(last.date(), content_id)), Counts(learners=1)
    if enrollment.completed_at is not None:
        yield Group(module_id, DAY, str(enrollment.completed_at.date())), Counts(enrollments_completed=1)


def of_record(record: Record) -> Iterator[Share]:
    """Yield the groups in which a record counts."""
    module_id, is_completed = record.module_id, record.completed_at is not None
    if record.excused_at is not None or record.started_at is None:
        yield Group(module_id, EXCUSED, record.content_id), Counts(learners=1)
        return
    yield (
        Group(module_id, CONTENT, record.content_id),
        Counts(
            started=1,
            completed=is_completed,
            time_spent_seconds=record.time_spent_seconds,
            scored=record.score is not None,
            score_hundredths=calculations.score_hundredths(record.score, record.max_score),
        ),
    )
    yield Group(module_id, DAY, str(record.started_at.date())), Counts(started=1)
    if record.completed_at is not None:
        yield Group(module_id, DAY, str(record.completed_at.date())), Counts(completed=1)


def of_day(day: ActivityDay) -> Iterator[Share]:
    """Yield the group in which a day of activity counts."""
    yield Group(day.module_id, DAY, str(day.day)), Counts(learners=1, time_spent_seconds=day.time_spent_seconds)


def item_of(period: date, content_id: str | None) -> str:
    """Return the item of a group of a week or day and a content; `functions.content_of` reads it."""
    return f"{period} {content_id}"

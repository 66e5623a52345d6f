"""The rules of progress: pure functions over values, without a clock or a database.

Percentages of contents are whole numbers from 0 to 100. Scores are kept in ten-thousandths of a point and passing
scores in hundredths of a per cent, so that every comparison is exact. docs/contract.md states the rules for callers.
"""

from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

ACTIVE, PAUSED, DROPPED, COMPLETED = STATUSES = ("active", "paused", "dropped", "completed")

POINT = 10_000
"""The number of units in which a score of 1 is kept."""


class CriteriaNotMet(Exception):
    """A record cannot be completed, because its best score does not reach the passing score."""


class Denominators(NamedTuple):
    """The denominators of a module's progress: of its current contents whose weight is 1 or more."""

    total_weight: int
    total_contents: int


class ContentRule(NamedTuple):
    """The rule of a content in the catalog: its module, when a record completes, and how much the content counts."""

    module_id: str
    weight: int
    completion_threshold: int
    passing_score: int | None
    retired: bool

    @property
    def counted_weight(self) -> int:
        """The weight in the module's progress: 0 while the content is retired."""
        return 0 if self.retired else self.weight


class Update(NamedTuple):
    """One report about a learner and a content. A field that is not reported changes nothing."""

    user_id: str
    content_id: str
    occurred_at: datetime
    progress_percentage: int = 0
    time_spent_seconds: int = 0
    score: int | None = None
    max_score: int | None = None
    position: str | None = None
    completes: bool = False
    """Whether the update completes the record, whatever its percentage."""
    by_instructor: bool = False
    """Whether an instructor sends it: in a module that they teach they do not count among the learners."""


class Record(NamedTuple):
    """How far one learner is with one content."""

    id: UUID
    user_id: str
    module_id: str
    content_id: str
    started_at: datetime
    last_activity_at: datetime
    furthest_percentage: int = 0
    time_spent_seconds: int = 0
    score: int | None = None
    max_score: int | None = None
    position: str | None = None
    position_at: datetime | None = None
    completed_at: datetime | None = None
    reached_at: datetime | None = None
    """The event time of the first update that reached the completion threshold or asked for the completion."""
    passed_at: datetime | None = None
    """The event time of the first score that reached the passing score, where there is a passing score."""

    @property
    def progress_percentage(self) -> int:
        """The percentage that callers see: 100 for completed records, and at most 99 for others."""
        return min(self.furthest_percentage, 99) if self.completed_at is None else 100


class Enrollment(NamedTuple):
    """How far one learner is with one module."""

    user_id: str
    module_id: str
    status: str
    enrolled_at: datetime
    weighted_sum: int = 0
    """The sum of weight x percentage over the module's current contents."""
    completed_contents: int = 0
    time_spent_seconds: int = 0
    completed_at: datetime | None = None
    last_activity_at: datetime | None = None
    last_content_id: str | None = None
    """The content of the latest update by event time; among equal times, of the update that was applied later."""
    enrolled_by_update: bool = False
    """Whether an update made the enrollment. Then `enrolled_at` is the earliest event time."""
    counted: bool = True
    """Whether the learner is in the module's statistics."""


class ActivityDay(NamedTuple):
    """One learner's activity in one module on one UTC day."""

    user_id: str
    module_id: str
    day: date
    time_spent_seconds: int = 0


def apply(record: Record, update: Update, content: ContentRule) -> Record:
    """Fold an update into a record.

    The result, dates included, does not depend on the order, grouping or repetition of the updates. Added time is the
    exception: it is added as often as it is reported. Raises CriteriaNotMet where the update asks for a completion that
    the passing score forbids.
    """
    at = update.occurred_at
    score, max_score = best_score(record.score, record.max_score, update.score, update.max_score)
    if update.completes and record.completed_at is None and not is_passed(score, max_score, content.passing_score):
        raise CriteriaNotMet
    position, position_at = record.position, record.position_at
    if update.position is not None and (position_at is None or at >= position_at):
        position, position_at = update.position, at
    known = milestones(record, content)
    reached_at, passed_at = known
    if update.completes or update.progress_percentage >= content.completion_threshold:
        reached_at = earliest(reached_at, at)
    if content.passing_score is not None and is_passed(update.score, update.max_score, content.passing_score):
        passed_at = earliest(passed_at, at)
    completed_at, fulfilled_at = record.completed_at, fulfilment(reached_at, passed_at, content)
    if fulfilled_at is not None and (completed_at is None or (reached_at, passed_at) != known):
        completed_at = earliest(completed_at, fulfilled_at)
    return record._replace(
        started_at=min(record.started_at, at),
        last_activity_at=max(record.last_activity_at, at),
        furthest_percentage=max(record.furthest_percentage, update.progress_percentage),
        time_spent_seconds=record.time_spent_seconds + update.time_spent_seconds,
        score=score,
        max_score=max_score,
        position=position,
        position_at=position_at,
        completed_at=completed_at,
        reached_at=reached_at,
        passed_at=passed_at,
    )


def milestones(record: Record, content: ContentRule) -> tuple[datetime | None, datetime | None]:
    """Return when a record reached the content's threshold and its passing score; None where it has not.

    The stored values decide, under the present rule. They may reach it without a stored date, if the rule was stricter
    or an earlier version kept no dates. The date is then the latest possible one: the completion, or the last activity.
    """
    by_then = record.completed_at or record.last_activity_at
    is_reached = record.completed_at is not None or record.furthest_percentage >= content.completion_threshold
    has_passed = content.passing_score is not None and is_passed(record.score, record.max_score, content.passing_score)
    return (record.reached_at or by_then) if is_reached else None, (record.passed_at or by_then) if has_passed else None


def fulfilment(reached_at: datetime | None, passed_at: datetime | None, content: ContentRule) -> datetime | None:
    """Return when the threshold and the passing score were both reached; None where the rule is not fulfilled."""
    if reached_at is None or content.passing_score is None:
        return reached_at
    return None if passed_at is None else max(reached_at, passed_at)


def earliest(known: datetime | None, other: datetime) -> datetime:
    """Return the earlier of two times; the first may be missing."""
    return other if known is None else min(known, other)


def best_score(
    score: int | None, max_score: int | None, other: int | None, other_max: int | None
) -> tuple[int | None, int | None]:
    """Return the score with the higher ratio to its maximum; of equal ratios, the score with the larger maximum."""
    if other is None or other_max is None:
        return score, max_score
    if score is None or max_score is None:
        return other, other_max
    is_better = (other * max_score, other_max) > (score * other_max, max_score)
    return (other, other_max) if is_better else (score, max_score)


def is_passed(score: int | None, max_score: int | None, passing_score: int | None) -> bool:
    """Tell whether a score reaches the passing score. Without a passing score everything passes."""
    if passing_score is None:
        return True
    return score is not None and max_score is not None and score * 10_000 >= passing_score * max_score


def count(enrollment: Enrollment, before: Record, after: Record, update: Update, content: ContentRule) -> Enrollment:
    """Apply the change that an update made to a record to the totals and dates of its enrollment."""
    at, last = update.occurred_at, enrollment.last_activity_at
    is_latest = last is None or at >= last
    return enrollment._replace(
        weighted_sum=enrollment.weighted_sum
        + content.counted_weight * (after.progress_percentage - before.progress_percentage),
        completed_contents=enrollment.completed_contents + (content.counted_weight > 0 and completes(before, after)),
        time_spent_seconds=enrollment.time_spent_seconds + update.time_spent_seconds,
        enrolled_at=min(enrollment.enrolled_at, at) if enrollment.enrolled_by_update else enrollment.enrolled_at,
        last_activity_at=at if is_latest else last,
        last_content_id=after.content_id if is_latest else enrollment.last_content_id,
    )


def completes(before: Record | Enrollment | None, after: Record | Enrollment) -> bool:
    """Tell whether a change is the completion of a record or an enrollment."""
    return (before is None or before.completed_at is None) and after.completed_at is not None


def change(
    enrollment: Enrollment, status: str | None, enrolled_at: datetime | None, counted: bool | None = None
) -> Enrollment:
    """Change the given fields of an enrollment; a completed enrollment keeps its status."""
    if status is None or enrollment.status == COMPLETED:
        status = enrollment.status
    if enrolled_at is not None:
        enrollment = enrollment._replace(enrolled_at=enrolled_at, enrolled_by_update=False)
    return enrollment._replace(status=status, counted=enrollment.counted if counted is None else counted)


def restart(enrollment: Enrollment) -> Enrollment:
    """Return an enrollment as it is without records. If it was completed it is active; else it keeps its status."""
    return Enrollment(
        enrollment.user_id,
        enrollment.module_id,
        ACTIVE if enrollment.status == COMPLETED else enrollment.status,
        enrollment.enrolled_at,
        enrolled_by_update=enrollment.enrolled_by_update,
        counted=enrollment.counted,
    )


def is_complete(enrollment: Enrollment, module: Denominators) -> bool:
    """Tell whether an active or paused enrollment completes: it has counted contents, and all are completed."""
    return enrollment.status in (ACTIVE, PAUSED) and 0 < module.total_contents == enrollment.completed_contents


def settle(enrollment: Enrollment, module: Denominators, at: datetime) -> Enrollment:
    """Complete an enrollment that is complete, at the time of a catalog change or of a change of status."""
    return enrollment._replace(status=COMPLETED, completed_at=at) if is_complete(enrollment, module) else enrollment


def complete(enrollment: Enrollment, was: datetime | None, last: datetime | None) -> Enrollment:
    """Complete an enrollment by updates, at the last completion of its counted contents.

    `was` is the time of that completion before the updates. An enrollment that was completed at that time moves earlier
    with it, and never later. An enrollment that a catalog change or a change of status has completed keeps its date.
    """
    if enrollment.completed_at is None:
        return enrollment._replace(status=COMPLETED, completed_at=last or enrollment.last_activity_at)
    if last is None or enrollment.completed_at != was:
        return enrollment
    return enrollment._replace(completed_at=min(last, was))


def score_hundredths(score: int | None, max_score: int | None) -> int:
    """Return a score in hundredths of a per cent of its maximum, rounded down; 0 where there is no score."""
    return score * 10_000 // max_score if score is not None and max_score else 0


def whole_percentage(weighted_sum: int, total_weight: int) -> int:
    """Return a module's progress in whole per cent, rounded down; 0 where no content has a weight."""
    return weighted_sum // (total_weight or 1)


def week_of(instant: datetime) -> date:
    """Return the Monday of an instant's week, in UTC."""
    return instant.date() - timedelta(days=instant.weekday())


def rounded_down(numerator: int, denominator: int) -> float | None:
    """Divide and round down to two decimals, so that 100 means complete; None for a divisor of 0."""
    return numerator * 100 // denominator / 100 if denominator else None


def module_percentage(enrollment: Enrollment, module: Denominators) -> float:
    """Return a module's progress in per cent, as callers see it.

    A module without any weight has no percentage: 100 stands for a completed enrollment, and 0 for others.
    """
    if not module.total_weight:
        return 100.0 if enrollment.status == COMPLETED else 0.0
    return rounded_down(enrollment.weighted_sum, module.total_weight) or 0.0


def score_percentage(score: int | None, max_score: int | None) -> float | None:
    """Return a score in per cent of its maximum, as callers see it."""
    return None if score is None else score_hundredths(score, max_score) / 100

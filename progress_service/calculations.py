"""The rules of progress: pure functions over values, without a clock or a database.

Percentages of contents are whole numbers from 0 to 100. Scores are kept in ten-thousandths of a point and passing
scores in hundredths of a per cent, so that every comparison is exact. docs/contract.md states the rules for callers.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

ACTIVE, PAUSED, DROPPED, COMPLETED = STATUSES = ("active", "paused", "dropped", "completed")
PROGRESS, SCORE = MISSING = ("progress", "score")
"""What may be missing for a completion: enough progress, and a score that passes."""

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


class Actor(NamedTuple):
    """Who does something: the caller of a request, or nobody by name for a command."""

    sub: str | None
    role: str

    @property
    def is_instructor(self) -> bool:
        """Whether an instructor does it: in modules that they teach they do not count among the learners."""
        return self.role == "instructor"


COMMAND = Actor(None, "command")


class Update(NamedTuple):
    """One report about a learner and a content. A field that is not reported changes nothing."""

    user_id: str
    content_id: str
    occurred_at: datetime
    progress_percentage: int = 0
    time_spent_seconds: int = 0
    """The time to add; with a session, the total of the session so far."""
    score: int | None = None
    max_score: int | None = None
    position: str | None = None
    completes: bool = False
    """Whether the update completes the record, whatever its percentage."""
    session: str | None = None
    """The player's name for the sitting; it is unique for the learner and the content."""
    by: Actor = COMMAND


class Record(NamedTuple):
    """How far one learner is with one content."""

    id: UUID
    user_id: str
    module_id: str
    content_id: str
    started_at: datetime | None
    """The time of the earliest update; None if the content was only excused."""
    last_activity_at: datetime | None
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
    excused_at: datetime | None = None
    """When the learner was excused from the content."""

    @property
    def done_at(self) -> datetime | None:
        """When the content was first done with: completed, or excused."""
        if self.completed_at is None or self.excused_at is None:
            return self.completed_at or self.excused_at
        return min(self.completed_at, self.excused_at)

    @property
    def progress_percentage(self) -> int:
        """The percentage that callers see: 100 for completed and excused records, and at most 99 for others."""
        return min(self.furthest_percentage, 99) if self.done_at is None else 100


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
    last_is_excused: bool = False
    """Whether the learner is excused from the last content, and so does not stall on it."""
    credited: bool = False
    """Whether the platform has given the completion, with its date, whatever the records say."""


class LineDates(NamedTuple):
    """As of when imported lines have told the fields of an enrollment; None where no line has told a field."""

    user_id: str
    module_id: str
    status_told_at: datetime | None = None
    enrolled_at_told_at: datetime | None = None
    counted_told_at: datetime | None = None
    completed_at_told_at: datetime | None = None


class Session(NamedTuple):
    """The largest total that was reported of one sitting of a learner with a content."""

    user_id: str
    content_id: str
    session: str
    time_spent_seconds: int
    received_at: datetime


class ActivityDay(NamedTuple):
    """One learner's activity in one module on one UTC day."""

    user_id: str
    module_id: str
    day: date
    time_spent_seconds: int = 0


def sit(session: Session | None, update: Update, now: datetime) -> tuple[Session, int]:
    """Return a session with the larger of its totals, and the seconds that the update adds to it."""
    assert update.session is not None
    known = session.time_spent_seconds if session else 0
    total = max(known, update.time_spent_seconds)
    return Session(update.user_id, update.content_id, update.session, total, now), total - known


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
        started_at=earliest(record.started_at, at),
        last_activity_at=latest(record.last_activity_at, at),
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
    by_then = record.completed_at or record.last_activity_at or record.excused_at
    is_reached, has_passed = meets(record, content)
    return (
        (record.reached_at or by_then) if is_reached or record.completed_at is not None else None,
        (record.passed_at or by_then) if has_passed and content.passing_score is not None else None,
    )


def meets(record: Record | None, content: ContentRule) -> tuple[bool, bool]:
    """Tell whether the values of a record reach the content's threshold, and its passing score, if there is one."""
    is_reached = record is not None and record.furthest_percentage >= content.completion_threshold
    return is_reached, is_passed(record and record.score, record and record.max_score, content.passing_score)


def missing(record: Record | None, content: ContentRule) -> list[str]:
    """Name what keeps a record from completing: `progress` or `score`, if there is none or too little of it.

    Nothing keeps a record that is completed or excused. An update that gives just what is missing completes the record.
    """
    if record is not None and record.done_at is not None:
        return []
    is_reached, has_passed = meets(record, content)
    return ([] if is_reached else [PROGRESS]) + ([] if has_passed else [SCORE])


def fulfilment(reached_at: datetime | None, passed_at: datetime | None, content: ContentRule) -> datetime | None:
    """Return when the threshold and the passing score were both reached; None where the rule is not fulfilled."""
    if reached_at is None or content.passing_score is None:
        return reached_at
    return None if passed_at is None else max(reached_at, passed_at)


def correct(record: Record, given: Mapping[str, Any], content: ContentRule, at: datetime) -> Record:
    """Replace the given values of a record, downwards too.

    If the percentage or the score is given, the completion follows from the rule: a record may stop being completed.
    """
    values = dict(given)
    if given.get("position", record.position) != record.position:
        values["position_at"] = None if given["position"] is None else at
    judged = "progress_percentage" in given or "score" in given
    values["furthest_percentage"] = values.pop("progress_percentage", record.furthest_percentage)
    corrected = record._replace(**values)
    if not judged:
        return corrected
    reached_at, passed_at = milestones(record, content)
    is_reached, has_passed = meets(corrected, content)
    return corrected._replace(
        reached_at=(reached_at or at) if is_reached else None,
        passed_at=(passed_at or at) if has_passed and content.passing_score is not None else None,
        completed_at=(record.completed_at or at) if is_reached and has_passed else None,
    )


def merge(record: Record, other: Record, content: ContentRule, counted_twice: int = 0) -> Record:
    """Fold another learner's record into a record, as if all updates had been of one learner.

    Of the time, some seconds may be in both: those of sessions that both records count. A completion is not dated anew
    if the updates of its own record alone reach the threshold and the passing score as early as all updates do.
    """
    records = record, other
    score, max_score = best_score(record.score, record.max_score, other.score, other.max_score)
    known = [milestones(one, content) for one in records]
    reached_at, passed_at = dates = tuple(min(filter(None, both), default=None) for both in zip(*known, strict=True))
    is_dated = any(one.completed_at is not None and own == dates for one, own in zip(records, known, strict=True))
    completions = (
        record.completed_at,
        other.completed_at,
        None if is_dated else fulfilment(reached_at, passed_at, content),
    )
    latest_place = max(records, key=lambda one: (one.position_at is not None, one.position_at))
    times = [one.time_spent_seconds for one in records]
    return record._replace(
        started_at=min(filter(None, (record.started_at, other.started_at)), default=None),
        last_activity_at=max(filter(None, (record.last_activity_at, other.last_activity_at)), default=None),
        furthest_percentage=max(record.furthest_percentage, other.furthest_percentage),
        time_spent_seconds=max(sum(times) - counted_twice, *times),
        score=score,
        max_score=max_score,
        position=latest_place.position,
        position_at=latest_place.position_at,
        completed_at=min(filter(None, completions), default=None),
        reached_at=reached_at,
        passed_at=passed_at,
        excused_at=min(filter(None, (record.excused_at, other.excused_at)), default=None),
    )


def earliest(known: datetime | None, other: datetime) -> datetime:
    """Return the earlier of two times; the first may be missing."""
    return other if known is None else min(known, other)


def latest(known: datetime | None, other: datetime) -> datetime:
    """Return the later of two times; the first may be missing."""
    return other if known is None else max(known, other)


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
        weighted_sum=enrollment.weighted_sum + contributed(after, content) - contributed(before, content),
        completed_contents=enrollment.completed_contents
        + (content.counted_weight > 0 and before.done_at is None and after.done_at is not None),
        time_spent_seconds=enrollment.time_spent_seconds + update.time_spent_seconds,
        enrolled_at=min(enrollment.enrolled_at, at) if enrollment.enrolled_by_update else enrollment.enrolled_at,
        last_activity_at=at if is_latest else last,
        last_content_id=after.content_id if is_latest else enrollment.last_content_id,
        last_is_excused=after.excused_at is not None if is_latest else enrollment.last_is_excused,
    )


def completes(before: Record | Enrollment | None, after: Record | Enrollment) -> bool:
    """Tell whether a change is the completion of a record or an enrollment."""
    return (before is None or before.completed_at is None) and after.completed_at is not None


def change(
    enrollment: Enrollment,
    status: str | None,
    enrolled_at: datetime | None,
    counted: bool | None,
    completed_at: datetime | None,
    now: datetime,
) -> Enrollment:
    """Change the given fields of an enrollment; a completed enrollment keeps its status. Its own dates change nothing.

    The status `completed` gives credit for what was completed elsewhere, whatever the records say: its date stands.
    Without that status, and for an enrollment that is not completed, a date of completion changes nothing.
    """
    if enrolled_at not in (None, enrollment.enrolled_at):
        enrollment = enrollment._replace(enrolled_at=enrolled_at, enrolled_by_update=False)
    if counted is not None:
        enrollment = enrollment._replace(counted=counted)
    if COMPLETED not in (status, enrollment.status):
        return enrollment._replace(status=status or enrollment.status)
    credited_at = completed_at or enrollment.completed_at or now
    if credited_at == enrollment.completed_at:
        return enrollment
    return enrollment._replace(status=COMPLETED, completed_at=credited_at, credited=True)


def heed(told: LineDates, given: Mapping[str, Any], at: datetime) -> tuple[LineDates, list[str]]:
    """Note as of when a line tells the given fields of an enrollment; return those that a later line has told.

    A completion is never taken back, so a line about it competes only with other lines about it.
    """
    dates = {field: f"{field}_told_at" for field in given}
    if given["status"] == COMPLETED:
        dates["status"] = dates["completed_at"]
    known = {field: getattr(told, dates[field]) or at for field, value in given.items() if value is not None}
    outdated = [field for field, known_at in known.items() if known_at > at]
    noted: dict[str, Any] = {dates[field]: at for field in known if field not in outdated}
    return told._replace(**noted), outdated


def join_dates(told: LineDates, other: LineDates, enrollment: Enrollment | None, joined: Enrollment) -> LineDates:
    """Return as of when lines have told the fields of a joined enrollment, each with the learner whose value it has.

    `told` is of the enrollment, if there was one, and `other` of the other learner's.
    """
    fields = [name.removesuffix("_told_at") for name in LineDates._fields[2:]]
    taken = [field for field in fields if not enrollment or getattr(enrollment, field) != getattr(joined, field)]
    return told._replace(**{f"{field}_told_at": getattr(other, f"{field}_told_at") for field in taken})


def recount(enrollment: Enrollment, records: Collection[Record], contents: Mapping[str, ContentRule]) -> Enrollment:
    """Return an enrollment with the totals of its records (`recount.recounted_totals` is the same in SQL)."""
    counted = [record for record in records if contents[record.content_id].counted_weight]
    started = min((record.started_at for record in records if record.started_at is not None), default=None)
    last = max((record.last_activity_at for record in records if record.last_activity_at is not None), default=None)
    latest = {record.content_id: record for record in records if last is not None and record.last_activity_at == last}
    last_content_id = max(latest, default=None)
    if enrollment.last_content_id in latest:
        last_content_id = enrollment.last_content_id
    return enrollment._replace(
        weighted_sum=sum(contributed(record, contents[record.content_id]) for record in records),
        completed_contents=sum(record.done_at is not None for record in counted),
        time_spent_seconds=sum(record.time_spent_seconds for record in records),
        enrolled_at=earliest(started, enrollment.enrolled_at)
        if enrollment.enrolled_by_update
        else enrollment.enrolled_at,
        last_activity_at=last,
        last_content_id=last_content_id,
        last_is_excused=last_content_id is not None and latest[last_content_id].excused_at is not None,
    )


def dates_done(records: Collection[Record], contents: Mapping[str, ContentRule]) -> list[datetime]:
    """Return when each of the counted contents was done that are done."""
    return [record.done_at for record in records if record.done_at and contents[record.content_id].counted_weight]


def _last_until(end: datetime, dates: Collection[datetime]) -> datetime | None:
    """Return the last date until the completion of an enrollment; afterwards its module may have grown."""
    return max((date for date in dates if date <= end), default=None)


def join(
    enrollment: Enrollment,
    other: Enrollment,
    done: Collection[datetime],
    other_done: Collection[datetime],
    joined_done: Collection[datetime],
) -> Enrollment:
    """Fold another learner's enrollment into an enrollment; the caller recounts the totals.

    `done` and `other_done` are when each learner's counted contents were done, and `joined_done` when those of both
    were. A date that the platform gave stands, and so does a completion, at the earlier of two dates.
    """
    given = [one for one in (enrollment, other) if not one.enrolled_by_update]
    dated = given[0] if given else min(enrollment, other, key=lambda one: one.enrolled_at)
    joined = enrollment._replace(enrolled_at=dated.enrolled_at, enrolled_by_update=dated.enrolled_by_update)
    credited = next((one for one in (enrollment, other) if one.credited), None)
    if credited is not None:
        return joined._replace(status=COMPLETED, completed_at=credited.completed_at, credited=True)
    completed = [(one.completed_at, own) for one, own in ((enrollment, done), (other, other_done)) if one.completed_at]
    if not completed:
        return joined
    first = min(at for at, _ in completed)
    if any(_last_until(at, own) == at for at, own in completed):
        first = _last_until(first, joined_done) or first
    return joined._replace(status=COMPLETED, completed_at=first)


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


def complete(enrollment: Enrollment, before: Collection[datetime], after: Collection[datetime]) -> Enrollment:
    """Complete an enrollment by updates, when the last of its counted contents was done.

    The dates are when its counted contents were done, before the updates and after them. An enrollment that was
    completed at the last of them moves earlier with it, and never later. An enrollment that a catalog change or a
    change of status has completed keeps its date.
    """
    at = enrollment.completed_at
    if at is None:
        return enrollment._replace(status=COMPLETED, completed_at=max(after, default=enrollment.last_activity_at))
    if enrollment.credited or _last_until(at, before) != at:
        return enrollment
    return enrollment._replace(completed_at=_last_until(at, after))


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


def share(content: ContentRule) -> int:
    """Return what a content can give to the weighted sum of its module's learners: weight x 100."""
    return content.counted_weight * 100


def contributed(record: Record | None, content: ContentRule) -> int:
    """Return what a record gives to the weighted sum of its enrollment: weight x percentage; 0 without a record."""
    return content.counted_weight * record.progress_percentage if record else 0


def part_of_module(weighted_sum: int, module: Denominators) -> float:
    """Return a weighted sum in per cent of a module, as callers see it; 0 in a module without any weight."""
    return rounded_down(weighted_sum, module.total_weight) or 0.0


def module_percentage(enrollment: Enrollment, module: Denominators) -> float:
    """Return a module's progress in per cent, as callers see it.

    A module without any weight has no percentage: 100 stands for a completed enrollment, and 0 for others.
    """
    if not module.total_weight:
        return 100.0 if enrollment.status == COMPLETED else 0.0
    return part_of_module(enrollment.weighted_sum, module)


def score_percentage(score: int | None, max_score: int | None) -> float | None:
    """Return a score in per cent of its maximum, as callers see it."""
    return None if score is None else score_hundredths(score, max_score) / 100


def passing_percentage(passing_score: int | None) -> float | None:
    """Return a passing score in per cent of the maximum, as callers see it."""
    return None if passing_score is None else passing_score / 100

"""The documents of statistics, made of the sums of a module's groups. The contract tells their populations."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import accumulate
from typing import Annotated, Any, Self

from msgspec import Meta, field

from progress_service.analytics.matrix import Row, TitledContent
from progress_service.analytics.overview import Summary
from progress_service.analytics.queries import Statistics
from progress_service.calculations import COMPLETED, DROPPED, STATUSES, Denominators, Enrollment, Record, rounded_down
from progress_service.tallies import NOTHING, Counts
from progress_service.web.documents import (
    Counted,
    EnrollmentDocument,
    EnrollmentStatus,
    ListedContent,
    ListedContentDocument,
    NextCursor,
    Percentage,
    RecordDocument,
    RecordStatus,
    Section,
    Time,
    grouped,
)
from progress_service.web.serialization import Document


class LearnerCountsDocument(Document):
    """Numbers of learners: `enrolled` is the sum of the four statuses, and the sum of `started` and `notStarted`."""

    enrolled: int
    active: int
    paused: int
    dropped: int
    completed: int
    started: int
    not_started: int


class TimeSpentDocument(Document):
    """The time that all learners spent, and the average over the learners who started."""

    total_seconds: int
    average_seconds_per_learner: float | None


class GroupStatisticsDocument(Document, kw_only=True):
    """The statistics of a group of contents, over the learners who started them."""

    contents: int
    started: int
    completed: int
    completion_rate: float | None
    average_time_spent_seconds: float | None

    @classmethod
    def of(cls, contents: Sequence[tuple[ListedContent, Counts]], **group: Any) -> Self:
        """Add up the contents of a group, whose name is the field that the class adds."""
        counts = _sum(counts for _, counts in contents)
        return cls(
            **group,
            contents=len(contents),
            started=counts.started,
            completed=counts.completed,
            completion_rate=_completion_rate(counts),
            average_time_spent_seconds=_average_time(counts),
        )


class TypeStatisticsDocument(GroupStatisticsDocument):
    """The statistics of a type's contents, over the learners who started them."""

    type: str


class SectionStatisticsDocument(GroupStatisticsDocument):
    """The statistics of a section's contents, over the learners who started them."""

    section: Section


class ContentStatisticsDocument(ListedContentDocument):
    """The statistics of a content, over the learners who started it and are not excused from it."""

    started: int
    completed: int
    excused: Annotated[int, Meta(description="Learners who are excused; they are in no other figure of the content.")]
    completion_rate: float | None
    average_time_spent_seconds: float | None
    average_score_percentage: float | None
    stalled: Annotated[
        int,
        Meta(
            description="Learners, neither completed nor dropped nor excused, whose last update was on this content"
            " and is at least `stalledDays` old."
        ),
    ]

    @classmethod
    def of(cls, content: ListedContent, counts: Counts, excused: int, stalled: int) -> Self:
        return cls(
            *content,
            started=counts.started,
            completed=counts.completed,
            excused=excused,
            completion_rate=_completion_rate(counts),
            average_time_spent_seconds=_average_time(counts),
            average_score_percentage=rounded_down(counts.score_hundredths, 100 * counts.scored),
            stalled=stalled,
        )


class StatisticsDocument(Document):
    """A module's statistics; rate, average, median and distribution run over the learners who are not dropped."""

    module_id: str
    title: str
    learners: LearnerCountsDocument
    completion_rate: float | None
    average_progress_percentage: float | None
    median_progress_percentage: Annotated[
        int | None, Meta(description="Of the percentages, rounded down to integers; the lower of two middle values.")
    ]
    progress_distribution: Annotated[
        list[int],
        Meta(
            min_length=11,
            max_length=11,
            description="How many learners are in [0,10), [10,20), … [90,100), and at exactly 100.",
        ),
    ]
    time_spent: TimeSpentDocument
    contents: list[ContentStatisticsDocument]
    by_type: list[TypeStatisticsDocument]
    by_section: list[SectionStatisticsDocument]

    @classmethod
    def of(cls, found: Statistics) -> Self:
        titled, contents, statuses, percentages, excused, stalled = found
        by_status = {status: statuses.get(status, NOTHING) for status in STATUSES}
        everybody = _sum(by_status.values())
        # In a module without weight nobody has a percentage.
        by_percentage = percentages if titled.module.total_weight else {}
        reached = [by_percentage.get(str(percentage), 0) for percentage in range(101)]
        by_type = grouped(contents, lambda content_counts: content_counts[0].type)
        by_section = grouped(contents, lambda content_counts: content_counts[0].section)
        return cls(
            module_id=titled.id,
            title=titled.title,
            learners=LearnerCountsDocument(
                enrolled=everybody.learners,
                **{status: counts.learners for status, counts in by_status.items()},
                started=everybody.started,
                not_started=everybody.learners - everybody.started,
            ),
            completion_rate=_module_completion_rate(statuses),
            average_progress_percentage=_average_progress(statuses, titled.module),
            median_progress_percentage=median(reached),
            progress_distribution=[sum(reached[first : first + 10]) for first in range(0, 101, 10)],
            time_spent=TimeSpentDocument(everybody.time_spent_seconds, _average_time(everybody)),
            contents=[
                ContentStatisticsDocument.of(content, counts, excused.get(content.id, 0), stalled.get(content.id, 0))
                for content, counts in contents
            ],
            by_type=[TypeStatisticsDocument.of(group, type=name) for name, group in by_type.items()],
            by_section=[SectionStatisticsDocument.of(group, section=name) for name, group in by_section.items()],
        )


class ListedLearnerDocument(EnrollmentDocument):
    """A learner of a module."""

    last_content_id: Annotated[str | None, Meta(description="The content of the learner's latest update.")]
    counted: Counted

    @classmethod
    def of(cls, enrollment: Enrollment, module: Denominators) -> Self:
        shown = EnrollmentDocument.of(enrollment, module)
        return cls.extending(shown, last_content_id=enrollment.last_content_id, counted=enrollment.counted)


class RosterDocument(Document):
    """A page of a module's learners."""

    items: list[ListedLearnerDocument]
    next_cursor: NextCursor


class DayDocument(Document):
    """The activity of a day, by the times of the updates."""

    day: date = field(name="date")
    active_learners: int
    contents_started: int
    contents_completed: int
    enrollments_completed: int
    time_spent_seconds: int

    @classmethod
    def of(cls, day: date, counts: Counts) -> Self:
        return cls(
            day=day,
            active_learners=counts.learners,
            contents_started=counts.started,
            contents_completed=counts.completed,
            enrollments_completed=counts.enrollments_completed,
            time_spent_seconds=counts.time_spent_seconds,
        )


class TimelineDocument(Document):
    """The activity in a module, day by day in UTC."""

    days: list[DayDocument]

    @classmethod
    def of(cls, first: date, last: date, days: Mapping[str, Counts]) -> Self:
        """Show every day from the first to the last."""
        dates = (first + timedelta(days=days_on) for days_on in range((last - first).days + 1))
        return cls([DayDocument.of(day, days.get(str(day), NOTHING)) for day in dates])


class ModuleSummaryDocument(Document):
    """A module's main figures, as its statistics have them."""

    module_id: str
    title: str
    enrolled: int
    started: int
    completed: int
    completion_rate: float | None
    average_progress_percentage: float | None
    last_activity_at: Annotated[Time | None, Meta(description="Of the learners who count.")]

    @classmethod
    def of(cls, summary: Summary) -> Self:
        titled, statuses, last_activity_at = summary
        everybody = _sum(statuses.values())
        return cls(
            module_id=titled.id,
            title=titled.title,
            enrolled=everybody.learners,
            started=everybody.started,
            completed=_completed(statuses),
            completion_rate=_module_completion_rate(statuses),
            average_progress_percentage=_average_progress(statuses, titled.module),
            last_activity_at=last_activity_at,
        )


class OverviewDocument(Document):
    """A page of modules."""

    modules: list[ModuleSummaryDocument]
    next_cursor: NextCursor

    @classmethod
    def of(cls, found: Sequence[Summary], limit: int) -> Self:
        """Show a page; there is another page if more modules than the limit were found."""
        page = found[:limit]
        return cls(list(map(ModuleSummaryDocument.of, page)), page[-1].module.id if len(found) > limit else None)


class MatrixContentDocument(Document):
    """A column of a matrix: a current content of the module."""

    content_id: str
    title: str


class MatrixCellDocument(Document):
    """The main figures of a learner's record."""

    status: RecordStatus
    progress_percentage: int
    score_percentage: Percentage | None
    time_spent_seconds: int

    @classmethod
    def of(cls, record: Record) -> Self:
        shown = RecordDocument.of(record)
        return cls(shown.status, shown.progress_percentage, shown.score_percentage, shown.time_spent_seconds)


class MatrixLearnerDocument(Document):
    """A row of a matrix: a learner of the module."""

    user_id: str
    status: EnrollmentStatus
    counted: Counted
    progress_percentage: Percentage
    contents: Annotated[
        list[MatrixCellDocument | None],
        Meta(description="In the order of the matrix's contents; null where there is no record."),
    ]

    @classmethod
    def of(cls, row: Row, module: Denominators) -> Self:
        shown = EnrollmentDocument.of(row.enrollment, module)
        return cls(
            user_id=shown.user_id,
            status=shown.status,
            counted=row.enrollment.counted,
            progress_percentage=shown.progress_percentage,
            contents=[MatrixCellDocument.of(record) if record else None for record in row.records],
        )


class MatrixDocument(Document):
    """A page of a module's learners, with what each has done in each of its contents."""

    contents: list[MatrixContentDocument]
    items: list[MatrixLearnerDocument]
    next_cursor: NextCursor

    @classmethod
    def of(
        cls, contents: Sequence[TitledContent], rows: Sequence[Row], module: Denominators, next_cursor: str | None
    ) -> Self:
        return cls(
            contents=[MatrixContentDocument(*content) for content in contents],
            items=[MatrixLearnerDocument.of(row, module) for row in rows],
            next_cursor=next_cursor,
        )


def median(counts: Sequence[int]) -> int | None:
    """Return the median of the values 0, 1, … with these counts: of two middle values the lower; None without any."""
    half = (sum(counts) + 1) // 2
    return next((value for value, reached in enumerate(accumulate(counts)) if reached >= half > 0), None)


def _sum(parts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(NOTHING, *parts, strict=True)))


def _completed(statuses: Mapping[str, Counts]) -> int:
    return statuses.get(COMPLETED, NOTHING).learners


def _staying(statuses: Mapping[str, Counts]) -> Counts:
    return _sum(counts for status, counts in statuses.items() if status != DROPPED)


def _module_completion_rate(statuses: Mapping[str, Counts]) -> float | None:
    return rounded_down(100 * _completed(statuses), _staying(statuses).learners)


def _average_progress(statuses: Mapping[str, Counts], module: Denominators) -> float | None:
    staying = _staying(statuses)
    return rounded_down(staying.weighted_sum, staying.learners * module.total_weight)


def _completion_rate(counts: Counts) -> float | None:
    return rounded_down(100 * counts.completed, counts.started)


def _average_time(counts: Counts) -> float | None:
    return rounded_down(counts.time_spent_seconds, counts.started)

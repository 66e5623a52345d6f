"""The documents about a learner's progress, made of the values that the queries found."""

from collections import Counter
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Self

from msgspec import Meta, Raw, field

from progress_service import calculations
from progress_service.calculations import (
    COMPLETED,
    DROPPED,
    MISSING,
    ActivityDay,
    Denominators,
    Enrollment,
    LineDates,
    Record,
    Session,
)
from progress_service.progress.queries import ContentProgress, EnrolledModule, Following, LearnerModule
from progress_service.store.journal import Change, Told
from progress_service.web.documents import (
    EXCUSED,
    IN_PROGRESS,
    NOT_STARTED,
    ChangeDocument,
    Counted,
    EnrollmentDocument,
    ListedContentDocument,
    NextCursor,
    Percentage,
    RecordDocument,
    Section,
    Time,
    grouped,
)
from progress_service.web.serialization import Document


class RecordedDocument(Document):
    """A record and its enrollment, as the request has left them."""

    progress: RecordDocument
    enrollment: EnrollmentDocument

    @classmethod
    def of(cls, record: Record, enrollment: Enrollment, module: Denominators) -> Self:
        return cls(RecordDocument.of(record), EnrollmentDocument.of(enrollment, module))


class CompletionDocument(Document):
    """The completion of a record, or of an enrollment."""

    user_id: str | None
    module_id: str | None
    content_id: Annotated[str | None, Meta(description="Null for the completion of an enrollment.")]
    completed_at: Time


class BatchRecordedDocument(Document):
    """The effect of a batch."""

    received: Annotated[int, Meta(description="How many updates were applied.")]
    started: Annotated[int, Meta(description="How many records were started.")]
    completed: Annotated[int, Meta(description="How many records were completed.")]
    enrollments_completed: int
    completions: Annotated[
        list[CompletionDocument], Meta(description="Records in the order of the updates, and then enrollments.")
    ]

    @classmethod
    def of(cls, received: int, started: int, completions: Sequence[Change]) -> Self:
        """Show what a batch has completed, as the journal tells it."""
        of_enrollments = sum(completion.content_id is None for completion in completions)
        return cls(
            received=received,
            started=started,
            completed=len(completions) - of_enrollments,
            enrollments_completed=of_enrollments,
            completions=[
                CompletionDocument(completion.user_id, completion.module_id, completion.content_id, completion.time)
                for completion in completions
            ],
        )


class SummaryDocument(Document):
    """The sums over all modules that are not dropped."""

    enrolled_modules: int
    active_modules: int
    completed_modules: int
    total_contents: int
    completed_contents: int
    progress_percentage: Annotated[
        Percentage | None, Meta(description="The mean of the modules' exact values, rounded down to two decimals.")
    ]
    time_spent_seconds: int
    last_activity_at: Time | None

    @classmethod
    def of(cls, modules: Sequence[EnrolledModule]) -> Self:
        enrollments = [enrolled.enrollment for enrolled in modules]
        weighted = [enrolled for enrolled in modules if enrolled.module.total_weight]
        sums: Counter[int] = Counter()  # by total weight, since fractions are slow to add
        for enrolled in weighted:
            sums[enrolled.module.total_weight] += enrolled.enrollment.weighted_sum
        total = sum((Fraction(weighted_sum, weight) for weight, weighted_sum in sums.items()), Fraction())
        activity = [enrollment.last_activity_at for enrollment in enrollments if enrollment.last_activity_at]
        return cls(
            enrolled_modules=len(modules),
            active_modules=sum(enrollment.status == calculations.ACTIVE for enrollment in enrollments),
            completed_modules=sum(enrollment.status == COMPLETED for enrollment in enrollments),
            total_contents=sum(enrolled.module.total_contents for enrolled in modules),
            completed_contents=sum(enrollment.completed_contents for enrollment in enrollments),
            progress_percentage=calculations.rounded_down(total.numerator, total.denominator * len(weighted)),
            time_spent_seconds=sum(enrollment.time_spent_seconds for enrollment in enrollments),
            last_activity_at=max(activity, default=None),
        )


class ContinueDocument(Document):
    """The content with which the learner continues; with 0, null and null if they have not started it."""

    module_id: str
    content_id: str
    title: str
    progress_percentage: Annotated[int, Meta(ge=0, le=99)]
    position: str | None
    last_activity_at: Time | None


class TitledEnrollmentDocument(EnrollmentDocument):
    """A learner's progress in a module, and the module's title."""

    title: str


class DashboardDocument(Document):
    """A learner's progress in all their modules."""

    user_id: str
    summary: SummaryDocument
    resume: ContinueDocument | None = field(name="continue")
    modules: Annotated[list[TitledEnrollmentDocument], Meta(description="By latest activity, newest first.")]

    @classmethod
    def of(
        cls, user_id: str, modules: Sequence[EnrolledModule], following: Following | None, status: str | None
    ) -> Self:
        """Show the learner's modules, or those with the given status, and a summary over all that are not dropped."""
        return cls(
            user_id=user_id,
            summary=SummaryDocument.of([enrolled for enrolled in modules if enrolled.enrollment.status != DROPPED]),
            resume=ContinueDocument(*following) if following else None,
            modules=[
                TitledEnrollmentDocument.extending(EnrollmentDocument.of(enrollment, module), title=title)
                for title, module, enrollment in modules
                if status in (None, enrollment.status)
            ],
        )


class ModuleTitleDocument(Document):
    """A module and its title."""

    id: str
    title: str


class ContentProgressDocument(ListedContentDocument):
    """A content of a module with its completion rule, the learner's record of it, and what that gives to the module."""

    completion_threshold: Annotated[int, Meta(description="The percentage at which a record completes.")]
    passing_score: Annotated[
        Percentage | None, Meta(description="The score that a record needs to complete, in per cent of its maximum.")
    ]
    progress: RecordDocument | None
    status: Annotated[str, Meta(extra_json_schema={"enum": [NOT_STARTED, IN_PROGRESS, COMPLETED, EXCUSED]})]
    share: Annotated[
        Percentage,
        Meta(description="How much of the module's percentage the content can give, rounded down to two decimals."),
    ]
    contributed: Annotated[
        Percentage,
        Meta(description="How much it gives, rounded down; the exact values add up to the module's percentage."),
    ]
    missing: Annotated[
        list[Annotated[str, Meta(extra_json_schema={"enum": list(MISSING)})]],
        Meta(description="What keeps the record from completing: there is none of it, or too little."),
    ]

    @classmethod
    def of(cls, content: ContentProgress, module: Denominators) -> Self:
        listed, rule, record = content
        shown = RecordDocument.of(record) if record else None
        return cls(
            *listed,
            completion_threshold=rule.completion_threshold,
            passing_score=calculations.passing_percentage(rule.passing_score),
            progress=shown,
            status=shown.status if shown else NOT_STARTED,
            share=calculations.part_of_module(calculations.share(rule), module),
            contributed=calculations.part_of_module(calculations.contributed(record, rule), module),
            missing=calculations.missing(record, rule),
        )


class GroupProgressDocument(Document, kw_only=True):
    """The sums over a group of contents; those of weight 0 count only for the time."""

    total_contents: int
    completed_contents: int
    time_spent_seconds: int

    @classmethod
    def of(cls, contents: Sequence[ContentProgress], **group: Any) -> Self:
        """Add up the contents of a group, whose name is the field that the class adds."""
        counted = [progress for progress in contents if progress.content.weight > 0]
        return cls(
            **group,
            total_contents=len(counted),
            completed_contents=sum(bool(progress.record and progress.record.done_at) for progress in counted),
            time_spent_seconds=sum(progress.record.time_spent_seconds for progress in contents if progress.record),
        )


class TypeProgressDocument(GroupProgressDocument):
    """The sums over the contents of a type; those of weight 0 count only for the time."""

    type: str


class SectionProgressDocument(GroupProgressDocument):
    """The sums over the contents of a section; those of weight 0 count only for the time."""

    section: Section


class ModuleProgressDocument(Document):
    """A learner's progress in one module, content by content."""

    module: ModuleTitleDocument
    enrollment: EnrollmentDocument | None
    contents: list[ContentProgressDocument]
    by_type: list[TypeProgressDocument]
    by_section: list[SectionProgressDocument]

    @classmethod
    def of(cls, module_id: str, found: LearnerModule) -> Self:
        by_type = grouped(found.contents, lambda progress: progress.content.type)
        by_section = grouped(found.contents, lambda progress: progress.content.section)
        return cls(
            module=ModuleTitleDocument(module_id, found.title),
            enrollment=EnrollmentDocument.of(found.enrollment, found.module) if found.enrollment else None,
            contents=[ContentProgressDocument.of(content, found.module) for content in found.contents],
            by_type=[TypeProgressDocument.of(group, type=name) for name, group in by_type.items()],
            by_section=[SectionProgressDocument.of(group, section=name) for name, group in by_section.items()],
        )


class HistoryDocument(Document):
    """What happened to a learner in a module."""

    changes: Annotated[list[ChangeDocument], Meta(description="Newest first, in the order of recording.")]
    next_cursor: NextCursor

    @classmethod
    def of(cls, history: Sequence[Told], limit: int) -> Self:
        """Show a page; there is another page if the history has more changes than the limit."""
        page = history[:limit]
        return cls(list(map(ChangeDocument.of, page)), str(page[-1].id) if len(history) > limit else None)


class ExportedEnrollmentDocument(TitledEnrollmentDocument):
    """An enrollment with everything that is stored about it."""

    last_content_id: str | None
    counted: Counted
    enrolled_by_update: Annotated[
        bool, Meta(description="Whether an update made it; then the earliest update dates it.")
    ]
    credited: Annotated[bool, Meta(description="Whether the platform gave the completion, with its date.")]
    last_is_excused: Annotated[bool, Meta(description="Whether the learner is excused from the last content.")]

    @classmethod
    def titled(cls, title: str, module: Denominators, enrollment: Enrollment) -> Self:
        return cls.extending(
            EnrollmentDocument.of(enrollment, module),
            title=title,
            last_content_id=enrollment.last_content_id,
            counted=enrollment.counted,
            enrolled_by_update=enrollment.enrolled_by_update,
            credited=enrollment.credited,
            last_is_excused=enrollment.last_is_excused,
        )


class ExportedRecordDocument(RecordDocument):
    """A record with everything that is stored about it, and its content's title."""

    title: str
    furthest_percentage: int
    position_at: Time | None
    reached_at: Annotated[
        Time | None,
        Meta(description="When the completion threshold was first reached; null also if this was not stored."),
    ]
    passed_at: Annotated[
        Time | None, Meta(description="When the passing score was first reached; null also if this was not stored.")
    ]
    excused_at: Time | None

    @classmethod
    def titled(cls, title: str, record: Record) -> Self:
        return cls.extending(
            RecordDocument.of(record),
            title=title,
            furthest_percentage=record.furthest_percentage,
            position_at=record.position_at,
            reached_at=record.reached_at,
            passed_at=record.passed_at,
            excused_at=record.excused_at,
        )


class ActivityDayDocument(Document):
    """A learner's activity in a module on a day, in UTC."""

    module_id: str
    day: date = field(name="date")
    time_spent_seconds: int


class SessionDocument(Document):
    """The largest total of a sitting that was reported."""

    content_id: str
    session: str
    time_spent_seconds: int
    received_at: Annotated[Time, Meta(description="When the sitting was last reported.")]


class ImportedEnrollmentDocument(Document):
    """As of when imported lines have told the fields of an enrollment; null where no line has told the field."""

    module_id: str
    status_told_at: Time | None
    enrolled_at_told_at: Time | None
    counted_told_at: Time | None
    completed_at_told_at: Time | None


class ExportedAnswerDocument(Document):
    """An answer that is stored for repeats of its request; null if it is about another learner, or about several."""

    idempotency_key: str
    request_digest: str
    status: int
    stored_at: Time
    answer: Annotated[Raw, Meta(extra_json_schema={"type": "object"})] | None

    @classmethod
    def of(cls, user_id: str, answer: Any) -> Self:
        return cls(
            idempotency_key=answer.key,
            request_digest=answer.fingerprint,
            status=answer.status,
            stored_at=answer.stored_at,
            answer=Raw(answer.body) if answer.learner_id == user_id else None,
        )


class ExportDocument(Document):
    """Everything that is stored about a learner."""

    user_id: str
    enrollments: list[ExportedEnrollmentDocument]
    imported_enrollments: list[ImportedEnrollmentDocument]
    records: list[ExportedRecordDocument]
    activity_days: list[ActivityDayDocument]
    sessions: list[SessionDocument]
    changes: Annotated[list[ChangeDocument], Meta(description="The journal, in the order of recording.")]
    teaches: list[ModuleTitleDocument]
    stored_answers: list[ExportedAnswerDocument]

    @classmethod
    def of(
        cls,
        user_id: str,
        modules: Sequence[EnrolledModule],
        line_dates: Sequence[LineDates],
        records: Sequence[tuple[str, Record]],
        days: Sequence[ActivityDay],
        sessions: Sequence[Session],
        changes: Sequence[Told],
        taught: Sequence[Any],
        answers: Sequence[Any],
    ) -> Self:
        return cls(
            user_id=user_id,
            enrollments=[ExportedEnrollmentDocument.titled(*module) for module in modules],
            imported_enrollments=[ImportedEnrollmentDocument(*dates[1:]) for dates in line_dates],
            records=[ExportedRecordDocument.titled(*record) for record in records],
            activity_days=[ActivityDayDocument(day.module_id, day.day, day.time_spent_seconds) for day in days],
            sessions=[SessionDocument(*session[1:]) for session in sessions],
            changes=list(map(ChangeDocument.of, changes)),
            teaches=[ModuleTitleDocument(module.id, module.title) for module in taught],
            stored_answers=[ExportedAnswerDocument.of(user_id, answer) for answer in answers],
        )

"""Records, enrollments and contents, as all answers show them."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, Self, TypeVar
from uuid import UUID

from msgspec import Meta, Raw

from progress_service import calculations
from progress_service.calculations import COMPLETED, POINT, STATUSES, Denominators, Enrollment, Record
from progress_service.store.journal import Told
from progress_service.store.models import CHANGE_TYPES
from progress_service.web.serialization import Document

Item = TypeVar("Item")
Key = TypeVar("Key")

IN_PROGRESS, NOT_STARTED, EXCUSED = "in_progress", "not_started", "excused"
COUNTED = "Whether the learner is in the module's statistics."

EVENT_SOURCE, EVENT_PREFIX = "urn:progress-service", "progress."
Time = Annotated[datetime, Meta(tz=True)]
Percentage = Annotated[float, Meta(ge=0, le=100)]
RecordStatus = Annotated[str, Meta(extra_json_schema={"enum": [IN_PROGRESS, COMPLETED, EXCUSED]})]
EnrollmentStatus = Annotated[str, Meta(extra_json_schema={"enum": list(STATUSES)})]
Counted = Annotated[bool, Meta(description=COUNTED)]
NextCursor = Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last page.")]
Section = Annotated[str | None, Meta(description="Null for the contents without a section.")]


class ListedContent(NamedTuple):
    """The columns of a current content that lists show."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int


class ListedContentDocument(Document):
    """A current content of a module."""

    content_id: str
    title: str
    type: str
    section: str | None
    weight: int


class RecordDocument(Document):
    """A learner's progress in a content."""

    id: UUID
    user_id: str
    module_id: str
    content_id: str
    status: RecordStatus
    progress_percentage: Annotated[
        int, Meta(ge=0, le=100, description="100 once the record is completed or excused, and 99 at most before.")
    ]
    time_spent_seconds: int
    score: Annotated[float | None, Meta(description="Of the best ratio of score to maximum.")]
    max_score: float | None
    score_percentage: Annotated[
        Percentage | None, Meta(description="The score in per cent of its maximum, rounded down to two decimals.")
    ]
    position: str | None
    started_at: Annotated[Time | None, Meta(description="Null if nothing was reported, as for a content excused.")]
    completed_at: Annotated[Time | None, Meta(description="When the record was completed, which happens once.")]
    last_activity_at: Time | None

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(
            id=record.id,
            user_id=record.user_id,
            module_id=record.module_id,
            content_id=record.content_id,
            status=_status(record),
            progress_percentage=record.progress_percentage,
            time_spent_seconds=record.time_spent_seconds,
            score=_points(record.score),
            max_score=_points(record.max_score),
            score_percentage=calculations.score_percentage(record.score, record.max_score),
            position=record.position,
            started_at=record.started_at,
            completed_at=record.completed_at,
            last_activity_at=record.last_activity_at,
        )


class EnrollmentDocument(Document):
    """A learner's progress in a module."""

    user_id: str
    module_id: str
    status: EnrollmentStatus
    progress_percentage: Annotated[
        Percentage,
        Meta(description="The mean of the contents' percentages by their weights, rounded down to two decimals."),
    ]
    completed_contents: int
    total_contents: Annotated[int, Meta(description="The current contents of weight 1 or more.")]
    time_spent_seconds: Annotated[int, Meta(description="The sum of the records, those of retired contents included.")]
    enrolled_at: Time
    completed_at: Annotated[Time | None, Meta(description="When the module was completed, which is never undone.")]
    last_activity_at: Time | None

    @classmethod
    def of(cls, enrollment: Enrollment, module: Denominators) -> Self:
        return cls(
            user_id=enrollment.user_id,
            module_id=enrollment.module_id,
            status=enrollment.status,
            progress_percentage=calculations.module_percentage(enrollment, module),
            completed_contents=enrollment.completed_contents,
            total_contents=module.total_contents,
            time_spent_seconds=enrollment.time_spent_seconds,
            enrolled_at=enrollment.enrolled_at,
            completed_at=enrollment.completed_at,
            last_activity_at=enrollment.last_activity_at,
        )


class ActorDocument(Document):
    """Who did it: the caller of the request; null for a command, and for somebody who was erased since."""

    sub: str | None
    role: Annotated[str, Meta(description="The caller's role; `command` for a command.")]


class ChangeDocument(Document):
    """One line of the journal: what happened to a learner or a module."""

    id: Annotated[str, Meta(description="Grows in the order in which things happen to a learner in a module.")]
    type: Annotated[str, Meta(extra_json_schema={"enum": list(CHANGE_TYPES)})]
    time: Annotated[Time, Meta(description="When it happened.")]
    recorded_at: Annotated[Time, Meta(description="When the service learned of it.")]
    user_id: str | None
    module_id: str | None
    content_id: str | None
    by: ActorDocument
    data: Annotated[Raw, Meta(description="The facts, by type.", extra_json_schema={"type": "object"})]

    @classmethod
    def of(cls, told: Told) -> Self:
        return cls(
            id=str(told.id),
            type=told.type,
            time=told.time,
            recorded_at=told.recorded_at,
            user_id=told.user_id,
            module_id=told.module_id,
            content_id=told.content_id,
            by=ActorDocument(told.by_sub, told.by_role),
            data=Raw(told.data),
        )


class EventDocument(Document):
    """A change as a CloudEvent, which webhooks are told."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(description="That of the change, however often it is sent.")]
    source: str
    type: Annotated[str, Meta(extra_json_schema={"enum": [EVENT_PREFIX + name for name in CHANGE_TYPES]})]
    subject: Annotated[str, Meta(description="The learner and the module: `sam/algebra`, `sam` or `/algebra`.")]
    time: Time
    datacontenttype: Literal["application/json"]
    data: ChangeDocument

    @classmethod
    def of(cls, told: Told) -> Self:
        return cls(
            specversion="1.0",
            id=str(told.id),
            source=EVENT_SOURCE,
            type=EVENT_PREFIX + told.type,
            subject="/".join([told.user_id or "", *([told.module_id] if told.module_id else [])]),
            time=told.time,
            datacontenttype="application/json",
            data=ChangeDocument.of(told),
        )


def _status(record: Record) -> str:
    if record.excused_at is not None:
        return EXCUSED
    return IN_PROGRESS if record.completed_at is None else COMPLETED


def _points(units: int | None) -> float | None:
    return None if units is None else units / POINT


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Put items of the same key together, in the order of each key's first item."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups

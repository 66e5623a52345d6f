"""Records, enrollments and contents as every answer shows them: the functions that make them, and their schemas."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from marshmallow import fields, validate

from progress_service import calculations
from progress_service.calculations import COMPLETED, POINT, STATUSES, Enrollment, Module, Record
from progress_service.validation import StrictSchema

Item = TypeVar("Item")

IN_PROGRESS, NOT_STARTED = "in_progress", "not_started"
COUNTED = "Whether the learner is in the module's statistics."


class ListedContent(NamedTuple):
    """What lists tell of a current content."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int


class RecordSchema(StrictSchema):
    """How far one learner is with one content."""

    id = fields.UUID(required=True)
    userId = fields.String(required=True)
    moduleId = fields.String(required=True)
    contentId = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf([IN_PROGRESS, COMPLETED]))
    progressPercentage = fields.Integer(
        required=True,
        validate=validate.Range(0, 100),
        metadata={"description": "100 once the record is completed, and 99 at most before."},
    )
    timeSpentSeconds = fields.Integer(required=True)
    score = fields.Float(required=True, allow_none=True, metadata={"description": "Of the best ratio to its maximum."})
    maxScore = fields.Float(required=True, allow_none=True)
    scorePercentage = fields.Float(
        required=True,
        allow_none=True,
        validate=validate.Range(0, 100),
        metadata={"description": "The best score in per cent of its maximum, rounded down to two decimals."},
    )
    position = fields.String(required=True, allow_none=True)
    startedAt = fields.AwareDateTime(required=True)
    completedAt = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "When the record was completed, which happens once."}
    )
    lastActivityAt = fields.AwareDateTime(required=True)


class EnrollmentSchema(StrictSchema):
    """How far one learner is with one module."""

    userId = fields.String(required=True)
    moduleId = fields.String(required=True)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    progressPercentage = fields.Float(
        required=True,
        validate=validate.Range(0, 100),
        metadata={
            "description": "The mean of the contents' percentages by their weights, rounded down to two decimals."
        },
    )
    completedContents = fields.Integer(required=True)
    totalContents = fields.Integer(required=True, metadata={"description": "The current contents of weight 1 or more."})
    timeSpentSeconds = fields.Integer(
        required=True, metadata={"description": "The sum of the records, those of retired contents included."}
    )
    enrolledAt = fields.AwareDateTime(required=True)
    completedAt = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "When the module was completed, which is never undone."},
    )
    lastActivityAt = fields.AwareDateTime(required=True, allow_none=True)


def content_document(content: ListedContent) -> dict[str, Any]:
    return {
        "contentId": content.id,
        "title": content.title,
        "type": content.type,
        "section": content.section,
        "weight": content.weight,
    }


def record_document(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "userId": record.user_id,
        "moduleId": record.module_id,
        "contentId": record.content_id,
        "status": IN_PROGRESS if record.completed_at is None else COMPLETED,
        "progressPercentage": record.progress_percentage,
        "timeSpentSeconds": record.time_spent_seconds,
        "score": _points(record.score),
        "maxScore": _points(record.max_score),
        "scorePercentage": calculations.score_percentage(record.score, record.max_score),
        "position": record.position,
        "startedAt": record.started_at,
        "completedAt": record.completed_at,
        "lastActivityAt": record.last_activity_at,
    }


def enrollment_document(enrollment: Enrollment, module: Module) -> dict[str, Any]:
    return {
        "userId": enrollment.user_id,
        "moduleId": enrollment.module_id,
        "status": enrollment.status,
        "progressPercentage": calculations.module_percentage(enrollment, module),
        "completedContents": enrollment.completed_contents,
        "totalContents": module.total_contents,
        "timeSpentSeconds": enrollment.time_spent_seconds,
        "enrolledAt": enrollment.enrolled_at,
        "completedAt": enrollment.completed_at,
        "lastActivityAt": enrollment.last_activity_at,
    }


def _points(units: int | None) -> float | None:
    return None if units is None else units / POINT


def grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """Put items of the same key together, in the order in which the keys come first."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups

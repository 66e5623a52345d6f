"""The dashboard and the view of a module, put together from what the queries found."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from msgspec import Raw

from progress_service.calculations import (
    ACTIVE,
    COMPLETED,
    DROPPED,
    ActivityDay,
    Enrollment,
    Module,
    Record,
    rounded_down,
)
from progress_service.documents import NOT_STARTED, content_document, enrollment_document, grouped, record_document
from progress_service.progress.queries import ContentProgress, EnrolledModule, Following


def dashboard_document(
    user_id: str, modules: Sequence[EnrolledModule], following: Following | None, status: str | None
) -> dict[str, Any]:
    """Show a learner's modules, those of one status where it is given, and a summary over all but the dropped."""
    return {
        "userId": user_id,
        "summary": _summary([one for one in modules if one.enrollment.status != DROPPED]),
        "continue": _continue(following) if following else None,
        "modules": [
            {**enrollment_document(one.enrollment, one.module), "title": one.title}
            for one in modules
            if status in (None, one.enrollment.status)
        ],
    }


def _summary(modules: Sequence[EnrolledModule]) -> dict[str, Any]:
    enrollments = [one.enrollment for one in modules]
    weighted = [one for one in modules if one.module.total_weight]
    sums: Counter[int] = Counter()
    for one in weighted:
        sums[one.module.total_weight] += one.enrollment.weighted_sum
    total = sum((Fraction(weighted_sum, weight) for weight, weighted_sum in sums.items()), Fraction())
    activity = [one.last_activity_at for one in enrollments if one.last_activity_at]
    return {
        "enrolledModules": len(modules),
        "activeModules": sum(one.status == ACTIVE for one in enrollments),
        "completedModules": sum(one.status == COMPLETED for one in enrollments),
        "totalContents": sum(one.module.total_contents for one in modules),
        "completedContents": sum(one.completed_contents for one in enrollments),
        "progressPercentage": rounded_down(total.numerator, total.denominator * len(weighted)),
        "timeSpentSeconds": sum(one.time_spent_seconds for one in enrollments),
        "lastActivityAt": max(activity, default=None),
    }


def _continue(row: Following) -> dict[str, Any]:
    return {
        "moduleId": row.module_id,
        "contentId": row.content_id,
        "title": row.title,
        "progressPercentage": row.progress_percentage,
        "position": row.position,
        "lastActivityAt": row.last_activity_at,
    }


def module_document(
    module_id: str, title: str, module: Module, enrollment: Enrollment | None, contents: Sequence[ContentProgress]
) -> dict[str, Any]:
    """Show a module's contents in order with a learner's records, and their sums by type."""
    return {
        "module": {"id": module_id, "title": title},
        "enrollment": enrollment_document(enrollment, module) if enrollment else None,
        "contents": [_content(one) for one in contents],
        "byType": [_type(*ones) for ones in grouped(contents, lambda one: one.content.type).items()],
    }


def _content(content: ContentProgress) -> dict[str, Any]:
    record = record_document(content.record) if content.record else None
    return {
        **content_document(content.content),
        "progress": record,
        "status": record["status"] if record else NOT_STARTED,
    }


def _type(kind: str, contents: Sequence[ContentProgress]) -> dict[str, Any]:
    counted = [one for one in contents if one.content.weight > 0]
    return {
        "type": kind,
        "totalContents": len(counted),
        "completedContents": sum(one.record is not None and one.record.completed_at is not None for one in counted),
        "timeSpentSeconds": sum(one.record.time_spent_seconds for one in contents if one.record),
    }


def export_document(
    user_id: str,
    modules: Sequence[EnrolledModule],
    records: Sequence[tuple[str, Record]],
    days: Sequence[ActivityDay],
    taught: Sequence[Any],
    answers: Sequence[Any],
) -> dict[str, Any]:
    """Show all that is stored about a learner."""
    return {
        "userId": user_id,
        "enrollments": [
            {
                **enrollment_document(one.enrollment, one.module),
                "title": one.title,
                "lastContentId": one.enrollment.last_content_id,
                "counted": one.enrollment.counted,
                "enrolledByUpdate": one.enrollment.enrolled_by_update,
            }
            for one in modules
        ],
        "records": [
            {
                **record_document(record),
                "title": title,
                "furthestPercentage": record.furthest_percentage,
                "positionAt": record.position_at,
                "reachedAt": record.reached_at,
                "passedAt": record.passed_at,
            }
            for title, record in records
        ],
        "activityDays": [
            {"moduleId": day.module_id, "date": day.day, "timeSpentSeconds": day.time_spent_seconds} for day in days
        ],
        "teaches": [{"id": module.id, "title": module.title} for module in taught],
        "storedAnswers": [_stored_answer(user_id, answer) for answer in answers],
    }


def _stored_answer(user_id: str, answer: Any) -> dict[str, Any]:
    """Show an answer that is kept for repeats; what tells of others, or of several people, is not the learner's own."""
    return {
        "idempotencyKey": answer.key,
        "requestDigest": answer.fingerprint,
        "status": answer.status,
        "storedAt": answer.stored_at,
        "answer": Raw(answer.body) if answer.learner_id == user_id else None,
    }

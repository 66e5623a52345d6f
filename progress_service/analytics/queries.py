"""What statistics are made of, in a constant number of statements."""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, and_, cast, func, select

from progress_service.models import Content, Enrollment, Module, ProgressRecord


class ModuleTitle(NamedTuple):
    """What a module is called, and the denominator of its progress."""

    id: str
    title: str
    total_weight: int


class LearnerGroup(NamedTuple):
    """Learners of a module with the same status and progress."""

    status: str
    weighted_sum: int
    learners: int
    started: int
    time_spent_seconds: int


class ContentCounts(NamedTuple):
    """A current content of a module, and what became of it over the learners who started it."""

    content_id: str
    title: str
    type: str
    section: str | None
    weight: int
    started: int
    completed: int
    time_spent_seconds: int
    scored: int
    score_hundredths: int
    """The sum of the score percentages as shown, in hundredths of a per cent."""


def module(connection: Connection, module_id: str) -> ModuleTitle | None:
    """Find a module."""
    row = connection.execute(select(Module.id, Module.title, Module.total_weight).filter_by(id=module_id)).first()
    return ModuleTitle(*row) if row else None


def learner_groups(connection: Connection, module_id: str) -> list[LearnerGroup]:
    """Group a module's learners by status and progress."""
    found = (
        select(
            Enrollment.status,
            Enrollment.weighted_sum,
            func.count(),
            func.count(Enrollment.last_activity_at),
            _sum(Enrollment.time_spent_seconds),
        )
        .where(Enrollment.module_id == module_id)
        .group_by(Enrollment.status, Enrollment.weighted_sum)
    )
    return [LearnerGroup(*row) for row in connection.execute(found)]


def content_counts(connection: Connection, module_id: str) -> list[ContentCounts]:
    """Count what became of each current content of a module, in catalog order."""
    record = ProgressRecord
    found = (
        select(
            Content.id,
            Content.title,
            Content.type,
            Content.section,
            Content.weight,
            func.count(record.id),
            func.count(record.completed_at),
            _sum(record.time_spent_seconds),
            func.count(record.score),
            _sum(record.score * 10_000 // record.max_score),
        )
        .outerjoin(record, and_(record.module_id == Content.module_id, record.content_id == Content.id))
        .where(Content.module_id == module_id, ~Content.retired)
        .group_by(Content.id)
        .order_by(Content.ordinal)
    )
    return [ContentCounts(*row) for row in connection.execute(found)]


def _sum(column: Any) -> Any:
    return cast(func.coalesce(func.sum(column), 0), BigInteger)

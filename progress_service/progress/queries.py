"""What answers about a learner's progress are made of, in a constant number of statements."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, and_, select

from progress_service import calculations
from progress_service.calculations import DROPPED
from progress_service.models import Content, Enrollment, Module, ProgressRecord
from progress_service.recorder import RecordKey
from progress_service.statements import ENROLLMENT, MODULE, RECORD, values


class EnrolledModule(NamedTuple):
    """A learner's enrollment in a module."""

    title: str
    module: calculations.Module
    enrollment: calculations.Enrollment


class ContentProgress(NamedTuple):
    """A content of a module, with a learner's record where they have started it."""

    id: str
    title: str
    type: str
    section: str | None
    weight: int
    record: calculations.Record | None


def enrolled_modules(connection: Connection, user_id: str) -> list[EnrolledModule]:
    """List a learner's modules, those worked on last first."""
    found = (
        select(Module.title, *MODULE, *ENROLLMENT)
        .join(Enrollment, Enrollment.module_id == Module.id)
        .where(Enrollment.user_id == user_id)
        .order_by(Enrollment.last_activity_at.desc().nulls_last(), Enrollment.module_id)
    )
    return [
        EnrolledModule(title, *values(row, calculations.Module, calculations.Enrollment))
        for title, *row in connection.execute(found)
    ]


def last_unfinished(connection: Connection, user_id: str) -> Any:
    """Find the unfinished record last worked on, and its content's title, in what the learner has not dropped."""
    found = (
        select(
            ProgressRecord.module_id,
            ProgressRecord.content_id,
            Content.title,
            ProgressRecord.progress_percentage,
            ProgressRecord.position,
            ProgressRecord.last_activity_at,
        )
        .join(Content, Content.id == ProgressRecord.content_id)
        .join(Enrollment, and_(Enrollment.user_id == user_id, Enrollment.module_id == ProgressRecord.module_id))
        .where(
            ProgressRecord.user_id == user_id,
            ProgressRecord.completed_at.is_(None),
            ~Content.retired,
            Enrollment.status != DROPPED,
        )
        .order_by(ProgressRecord.last_activity_at.desc(), ProgressRecord.id.desc())
        .limit(1)
    )
    return connection.execute(found).first()


def enrolled_module(
    connection: Connection, user_id: str, module_id: str
) -> tuple[str, calculations.Module, calculations.Enrollment | None] | None:
    """Find a module's title and denominators, and the learner's enrollment where there is one."""
    found = (
        select(Module.title, *MODULE, *ENROLLMENT)
        .outerjoin(Enrollment, and_(Enrollment.module_id == Module.id, Enrollment.user_id == user_id))
        .where(Module.id == module_id)
    )
    for title, *row in connection.execute(found):
        module, enrollment = values(row, calculations.Module, calculations.Enrollment)
        return title, module, enrollment
    return None


def contents(connection: Connection, user_id: str, module_id: str) -> list[ContentProgress]:
    """List a module's current contents in order, each with the learner's record."""
    found = (
        select(Content.id, Content.title, Content.type, Content.section, Content.weight, *RECORD)
        .outerjoin(ProgressRecord, and_(ProgressRecord.content_id == Content.id, ProgressRecord.user_id == user_id))
        .where(Content.module_id == module_id, ~Content.retired)
        .order_by(Content.ordinal)
    )
    return [ContentProgress(*row[:5], *values(row[5:], calculations.Record)) for row in connection.execute(found)]


def record_key(connection: Connection, record_id: str) -> RecordKey | None:
    """Find whose record, on which content, an id stands for."""
    try:
        found = select(ProgressRecord.user_id, ProgressRecord.content_id).where(ProgressRecord.id == UUID(record_id))
    except ValueError:
        return None
    row = connection.execute(found).first()
    return RecordKey(*row) if row else None

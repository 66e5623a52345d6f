"""What answers about a learner's progress are made of, in a constant number of statements."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, and_, bindparam, literal_column, select

from progress_service import calculations
from progress_service.calculations import DROPPED
from progress_service.models import Content, Enrollment, Module, ProgressRecord
from progress_service.prepared import Prepared
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


class Unfinished(NamedTuple):
    """A record that is not completed, on a content with a title."""

    module_id: str
    content_id: str
    title: str
    progress_percentage: int
    position: str | None
    last_activity_at: Any


THE_LEARNER: Any = bindparam("user_id", type_=ProgressRecord.user_id.type)
THE_MODULE: Any = bindparam("module_id", type_=Module.id.type)

ENROLLED_MODULES = Prepared(
    select(Module.title, *MODULE, *ENROLLMENT)
    .join(Enrollment, Enrollment.module_id == Module.id)
    .where(Enrollment.user_id == THE_LEARNER)
    .order_by(Enrollment.last_activity_at.desc().nulls_last(), Enrollment.module_id)
)
LAST_UNFINISHED = Prepared(
    select(
        ProgressRecord.module_id,
        ProgressRecord.content_id,
        Content.title,
        ProgressRecord.progress_percentage,
        ProgressRecord.position,
        ProgressRecord.last_activity_at,
    )
    .join(Content, Content.id == ProgressRecord.content_id)
    .join(Enrollment, and_(Enrollment.user_id == THE_LEARNER, Enrollment.module_id == ProgressRecord.module_id))
    .where(
        ProgressRecord.user_id == THE_LEARNER,
        ProgressRecord.completed_at.is_(None),
        ~Content.retired,
        Enrollment.status != literal_column(f"'{DROPPED}'"),
    )
    .order_by(ProgressRecord.last_activity_at.desc(), ProgressRecord.id.desc())
    .limit(literal_column("1"))
)
ENROLLED_MODULE = Prepared(
    select(Module.title, *MODULE, *ENROLLMENT)
    .outerjoin(Enrollment, and_(Enrollment.module_id == Module.id, Enrollment.user_id == THE_LEARNER))
    .where(Module.id == THE_MODULE)
)
CONTENTS = Prepared(
    select(Content.id, Content.title, Content.type, Content.section, Content.weight, *RECORD)
    .outerjoin(ProgressRecord, and_(ProgressRecord.content_id == Content.id, ProgressRecord.user_id == THE_LEARNER))
    .where(Content.module_id == THE_MODULE, ~Content.retired)
    .order_by(Content.ordinal)
)
RECORD_KEY = Prepared(
    select(ProgressRecord.user_id, ProgressRecord.content_id).where(
        ProgressRecord.id == bindparam("record_id", type_=ProgressRecord.id.type)
    )
)


def dashboard(connection: Connection, user_id: str) -> tuple[list[EnrolledModule], Unfinished | None]:
    """List a learner's modules, those worked on last first, and find the unfinished record last worked on.

    That one is in a module that the learner has not dropped, on a content that is not retired.
    """
    modules = ENROLLED_MODULES.run(connection, user_id=user_id)
    unfinished = LAST_UNFINISHED.run(connection, user_id=user_id)
    enrolled = [
        EnrolledModule(title, *values(row, calculations.Module, calculations.Enrollment)) for title, *row in modules
    ]
    return enrolled, next((Unfinished(*row) for row in unfinished), None)


def learner_module(
    connection: Connection, user_id: str, module_id: str
) -> tuple[str, calculations.Module, calculations.Enrollment | None, list[ContentProgress]] | None:
    """Find a module's title and denominators, a learner's enrollment in it, and its current contents in order."""
    ours = {"user_id": user_id, "module_id": module_id}
    for title, *row in ENROLLED_MODULE.run(connection, **ours):
        module, enrollment = values(row, calculations.Module, calculations.Enrollment)
        return title, module, enrollment, [_content(row) for row in CONTENTS.run(connection, **ours)]
    return None


def record_key(connection: Connection, record_id: str) -> RecordKey | None:
    """Find whose record, on which content, an id stands for."""
    try:
        found = RECORD_KEY.run(connection, record_id=UUID(record_id))
    except ValueError:
        return None
    return next((RecordKey(*row) for row in found), None)


def _content(row: Any) -> ContentProgress:
    return ContentProgress(*row[:5], *values(row[5:], calculations.Record))

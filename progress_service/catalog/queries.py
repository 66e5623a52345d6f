"""What the catalog answers are made of."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, select

from progress_service import calculations
from progress_service.models import Content, Enrollment, Module, ModuleInstructor
from progress_service.statements import ENROLLMENT, MODULE, values

SHOWN_TOGETHER = 500
"""How many modules of the whole catalog are read by one statement."""


def modules(connection: Connection, instructor_id: str | None) -> list[dict[str, Any]]:
    """List the modules, or those that an instructor teaches."""
    found = select(Module.id, Module.title, Module.total_contents).order_by(Module.id)
    if instructor_id is not None:
        found = found.join(ModuleInstructor).where(ModuleInstructor.user_id == instructor_id)
    return [
        {"id": module_id, "title": title, "totalContents": total}
        for module_id, title, total in connection.execute(found)
    ]


def module_document(connection: Connection, module_id: str) -> dict[str, Any] | None:
    """Show a module as it was last published."""
    return next(_module_documents(connection, [module_id]), None)


def catalog(connection: Connection) -> Iterator[dict[str, Any]]:
    """Show every module as it was last published, by id."""
    module_ids = connection.execute(select(Module.id).order_by(Module.id)).scalars().all()
    for start in range(0, len(module_ids), SHOWN_TOGETHER):
        yield from _module_documents(connection, module_ids[start : start + SHOWN_TOGETHER])


def _module_documents(connection: Connection, module_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    modules = select(Module.id, Module.title).where(Module.id.in_(module_ids)).order_by(Module.id)
    teaching = (
        select(ModuleInstructor.module_id, ModuleInstructor.user_id)
        .where(ModuleInstructor.module_id.in_(module_ids))
        .order_by(ModuleInstructor.ordinal)
    )
    current = select(Content).where(Content.module_id.in_(module_ids), ~Content.retired).order_by(Content.ordinal)
    instructor_ids, contents = defaultdict(list), defaultdict(list)
    for module_id, user_id in connection.execute(teaching):
        instructor_ids[module_id].append(user_id)
    for row in connection.execute(current):
        contents[row.module_id].append(_content_document(row))
    for module_id, title in connection.execute(modules):
        yield {
            "id": module_id,
            "title": title,
            "instructorIds": instructor_ids[module_id],
            "contents": contents[module_id],
        }


def enrollment(
    connection: Connection, user_id: str, module_id: str
) -> tuple[calculations.Enrollment, calculations.Module] | None:
    """Find an enrollment and its module's denominators."""
    found = (
        select(*MODULE, *ENROLLMENT)
        .join(Enrollment, Enrollment.module_id == Module.id)
        .where(Enrollment.user_id == user_id, Enrollment.module_id == module_id)
    )
    for row in connection.execute(found):
        module, enrollment = values(row, calculations.Module, calculations.Enrollment)
        return enrollment, module
    return None


def _content_document(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "title": row.title,
        "type": row.type,
        "section": row.section,
        "weight": row.weight,
        "completionThreshold": row.completion_threshold,
        "passingScore": None if row.passing_score is None else row.passing_score / 100,
    }

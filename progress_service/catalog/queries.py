"""What the catalog answers are made of."""

from typing import Any

from sqlalchemy import Connection, select

from progress_service import calculations
from progress_service.models import Content, Enrollment, Module, ModuleInstructor
from progress_service.statements import ENROLLMENT, MODULE, values


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
    title = connection.execute(select(Module.title).filter_by(id=module_id)).scalar()
    if title is None:
        return None
    teaching = select(ModuleInstructor.user_id).filter_by(module_id=module_id).order_by(ModuleInstructor.ordinal)
    contents = select(Content).where(Content.module_id == module_id, ~Content.retired).order_by(Content.ordinal)
    return {
        "id": module_id,
        "title": title,
        "instructorIds": list(connection.execute(teaching).scalars()),
        "contents": [_content_document(row) for row in connection.execute(contents)],
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

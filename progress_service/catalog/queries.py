"""The queries for answers about the catalog and enrollments."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Row, select

from progress_service import calculations
from progress_service.store.models import Content, Enrollment, Module, ModuleInstructor
from progress_service.store.publishing import PublishedContent, PublishedModule
from progress_service.store.values import ENROLLMENT, MODULE, columns, values

READ_TOGETHER = 500
"""The most modules that one statement reads."""


def modules(connection: Connection, instructor_id: str | None) -> Sequence[Row[str, str, int]]:
    """List all modules, or the modules that an instructor teaches: id, title, and number of counted contents."""
    found = select(Module.id, Module.title, Module.total_contents).order_by(Module.id)
    if instructor_id is not None:
        found = found.join(ModuleInstructor).where(ModuleInstructor.user_id == instructor_id)
    return connection.execute(found).all()


def module(connection: Connection, module_id: str) -> PublishedModule | None:
    """Read a module as it was last published."""
    return next(published(connection, [module_id]), None)


def catalog(connection: Connection) -> Iterator[PublishedModule]:
    """Read every module as it was last published, by id."""
    module_ids = connection.execute(select(Module.id).order_by(Module.id)).scalars().all()
    return published(connection, module_ids)


def published(connection: Connection, module_ids: Sequence[str]) -> Iterator[PublishedModule]:
    """Read modules as they were last published; ids without a module are left out."""
    for start in range(0, len(module_ids), READ_TOGETHER):
        ids = module_ids[start : start + READ_TOGETHER]
        modules = select(Module.id, Module.title).where(Module.id.in_(ids)).order_by(Module.id)
        teaching = (
            select(ModuleInstructor.module_id, ModuleInstructor.user_id)
            .where(ModuleInstructor.module_id.in_(ids))
            .order_by(ModuleInstructor.ordinal)
        )
        current = (
            select(Content.module_id, *columns(Content, PublishedContent))
            .where(Content.module_id.in_(ids), ~Content.retired)
            .order_by(Content.ordinal)
        )
        instructor_ids, contents = defaultdict(list), defaultdict(list)
        for module_id, user_id in connection.execute(teaching):
            instructor_ids[module_id].append(user_id)
        for module_id, *content in connection.execute(current):
            contents[module_id].append(PublishedContent(*content))
        for module_id, title in connection.execute(modules):
            yield PublishedModule(module_id, title, instructor_ids[module_id], contents[module_id])


def enrollment(
    connection: Connection, user_id: str, module_id: str
) -> tuple[calculations.Enrollment, calculations.Denominators] | None:
    """Find an enrollment and its module's denominators."""
    found = (
        select(*MODULE, *ENROLLMENT)
        .join(Enrollment, Enrollment.module_id == Module.id)
        .where(Enrollment.user_id == user_id, Enrollment.module_id == module_id)
    )
    row = connection.execute(found).first()
    if row is None:
        return None
    module, enrollment = values(row, calculations.Denominators, calculations.Enrollment)
    return enrollment, module

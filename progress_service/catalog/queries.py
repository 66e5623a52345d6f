"""The queries for answers about the catalog and enrollments."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Row, select

from progress_service import calculations
from progress_service.store.models import Enrollment, Module, ModuleInstructor
from progress_service.store.publishing import PublishedModule, published
from progress_service.store.values import ENROLLMENT, MODULE, values


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

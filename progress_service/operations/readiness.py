"""Whether the service can work with its database."""

from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, TimeoutError

from progress_service.store import database, revisions


def fault() -> str | None:
    """Return why the service cannot work, or None if it can."""
    try:
        revision = database.read(_revision)
    except (DBAPIError, TimeoutError):
        return "The database cannot be reached in time."
    newest = revisions.newest(current_app.extensions["migrate"].directory)
    if fault := revisions.fault(revision, newest):
        return fault
    try:
        database.try_writing()
    except (DBAPIError, TimeoutError):
        return "The database cannot be written to."
    return None


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision

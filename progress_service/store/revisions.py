"""The revisions of the schema that this version can work with.

Revisions are numbered, so that later revisions sort last. A migration only adds to the schema, so that earlier versions
still work. A later migration removes the parts that no version uses any more. Its name, and the names of all migrations
after it, give the revision that a version must know: `0006_needs_0005`.
"""

from functools import cache

from alembic.script import ScriptDirectory
from flask import current_app
from sqlalchemy import Connection, text


def known() -> str:
    """Return the newest revision that this version knows."""
    return newest(current_app.extensions["migrate"].directory)


@cache
def newest(directory: str) -> str:
    """Return the newest revision in a directory of migrations."""
    head = ScriptDirectory(directory).get_current_head()
    assert head is not None
    return head


def of(connection: Connection) -> str | None:
    """Return the revision of a database, or None if it has no schema."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def fault(revision: str | None, newest: str) -> str | None:
    """Return why a version with this newest revision cannot work with a database at the given revision, or None."""
    if revision is None:
        return "The database has no schema yet: run `flask db upgrade`."
    if revision < newest:
        return f"The schema is {revision} and this version needs {newest}: run `flask db upgrade`."
    if revision.partition("_needs_")[2] > newest.partition("_needs_")[0]:
        return f"The schema is {revision}, and this version is of {newest}: install a later one."
    return None

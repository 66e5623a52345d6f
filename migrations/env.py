"""How migrations run: online, on the application's engine, one run after another, each in one transaction."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from alembic import context
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from flask import current_app
from sqlalchemy import Connection, text
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError, ProgrammingError

from progress_service.store import revisions
from progress_service.store.connections import Timeouts
from progress_service.store.database import db

LOCK_SECONDS = 2
"""How long a step waits for a table. Everybody else who wants the table waits behind it."""
LOCK_NOT_AVAILABLE, DEADLOCK, QUERY_CANCELED, NOT_ALLOWED = "55P03", "40P01", "57014", "42501"
MAY_LOSE = "lose-data"
TURN = "(hashtextextended('flask db', 0))"
# For the transaction, so that the settings also hold behind a pooler.
SET_TIMEOUTS = text(
    "SELECT set_config('lock_timeout', :lock, true), set_config('statement_timeout', :statement, true),"
    " set_config('idle_in_transaction_session_timeout', :statement, true)"
)


@Operations.register_operation("loses")
class Loss(MigrateOperation):
    """Rows that a step deletes: their name for people, and the text that selects them after FROM."""

    def __init__(self, name: str, rows: str) -> None:
        self.name, self.rows = name, rows

    @classmethod
    def loses(cls, operations: Operations, name: str, rows: str) -> None:
        """Declare the rows that the next statements delete."""
        operations.invoke(cls(name, rows))


@Operations.implementation_for(Loss)
def count(operations: Operations, loss: Loss) -> None:
    """Note how many rows would be lost, if there are any."""
    found = operations.get_bind().execute(text(f"SELECT count(*) FROM {loss.rows}")).scalar()
    if found:
        operations.migration_context.opts["losses"].append(f"{found} {loss.name}")


def run(connection: Connection) -> None:
    """Run the command in one transaction, and then print the steps that were done."""
    done: list[str] = []
    losses: list[str] = []
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        on_version_apply=lambda step, **_: done.extend(describe(step)),
        losses=losses,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            check_encoding(connection)
            wait_for_turn(connection)
        (revision,) = context.get_context().get_current_heads() or (None,)
        destination = context.get_context().opts.get("destination_rev")
        newest = revisions.newest(context.script.dir)
        if destination == "head" and (revision or "") > newest:
            if fault := revisions.fault(revision, newest):
                raise CommandError(fault)
            revision = f"{revision}, which is later than this version's {newest}"
        else:
            context.run_migrations()
        if losses and MAY_LOSE not in context.get_x_argument():
            raise CommandError(f"This would lose {', '.join(losses)}. To lose them, give `-x {MAY_LOSE}`.")
    if not done and isinstance(destination, str):
        done.append(f"Nothing to do: the database is at {revision or 'base'}.")
    for line in done:
        click.echo(line)


def describe(step: MigrationInfo) -> Iterator[str]:
    """Describe a step, unless it has only marked the database."""
    if not step.is_stamp:
        yield f"{step.up_revision.revision} {'applied' if step.is_upgrade else 'taken back'}: {step.up_revision.doc}"


def check_encoding(connection: Connection) -> None:
    """Raise CommandError if there are letters that the database cannot store, or counts as several."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise CommandError(f"The database's encoding is {encoding}: make one with ENCODING 'UTF8' TEMPLATE template0.")


def wait_for_turn(connection: Connection) -> None:
    """Wait until other runs have ended, hold off more until the transaction ends, and set the timeouts of commands."""
    if not connection.execute(text(f"SELECT pg_try_advisory_xact_lock{TURN}")).scalar():
        click.echo("Waiting for another run to end.")
        connection.execute(text(f"SELECT pg_advisory_xact_lock{TURN}"))
    patience = current_app.config["CATALOG_TIMEOUT"]
    connection.execute(SET_TIMEOUTS, {"lock": f"{LOCK_SECONDS}s", "statement": f"{patience}s"})


def run_when_tables_are_free(connection: Connection) -> None:
    """Run; if others hold a table for long, let the writers who wait go first, and try again after a pause."""
    deadline = time.monotonic() + current_app.config["CATALOG_TIMEOUT"]
    pause = 1
    while True:
        try:
            return run(connection)
        except OperationalError as error:
            if code(error) not in (LOCK_NOT_AVAILABLE, DEADLOCK) or time.monotonic() + pause > deadline:
                raise
        click.echo(f"A table is in use: trying again in {pause} s.")
        time.sleep(pause)
        pause *= 2


@contextmanager
def prepared_for_sqlite(connection: Connection) -> Iterator[None]:
    """Wait for other writers as long as a command may, and leave foreign keys unchecked.

    SQLite alters a table by a copy that replaces it, while other tables refer to it.
    """
    driver = connection.connection.cursor()
    (patience,) = driver.execute("PRAGMA busy_timeout").fetchone()
    driver.execute(f"PRAGMA busy_timeout = {1000 * current_app.config['CATALOG_TIMEOUT']}")
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")
        driver.execute(f"PRAGMA busy_timeout = {patience}")


def code(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of an error of PostgreSQL."""
    return getattr(error.orig, "sqlstate", None)


def advice(error: DBAPIError) -> str:
    """Return the database's message and the advice for it, in one line."""
    detail = str(error.orig).partition("\n")[0]
    if code(error) in (LOCK_NOT_AVAILABLE, DEADLOCK):
        return f"{detail}: others hold a table for long, see pg_stat_activity. Nothing has changed: run it again later."
    if code(error) == QUERY_CANCELED:
        return f"{detail}. Nothing has changed: give it more time, as PROGRESS_CATALOG_TIMEOUT, in seconds."
    if code(error) == NOT_ALLOWED:
        return f"{detail}. Nothing has changed: run it as the role that owns the tables."
    return detail


try:
    with db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            with prepared_for_sqlite(connection):
                run(connection)
        else:
            # Other runs are waited for without a limit, and so are long steps.
            run_when_tables_are_free(connection.execution_options(timeouts=Timeouts(0, 0)))
except ProgrammingError as error:
    if code(error) != NOT_ALLOWED:
        raise
    raise CommandError(advice(error)) from error
except DatabaseError as error:
    raise CommandError(advice(error)) from error

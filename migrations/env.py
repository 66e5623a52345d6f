"""How migrations run: online, on the application's own engine, each in one transaction."""

from alembic import context
from sqlalchemy import Connection

from progress_service.extensions import db


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on_sqlite(connection: Connection) -> None:
    """Run with foreign keys unchecked: SQLite alters a table by making it anew, which others refer to meanwhile."""
    driver = connection.connection.cursor()
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        run(connection)
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


with db.engine.connect() as connection:
    (run_on_sqlite if connection.dialect.name == "sqlite" else run)(connection)

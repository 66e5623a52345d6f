"""What OpenTelemetry's agent loads, and nobody else: without the agent, its packages are not needed."""

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor


def see_statements() -> None:
    """Let the agent see statements. It would not by itself, since it does not know this version of SQLAlchemy yet."""
    SQLAlchemyInstrumentor().instrument(skip_dep_check=True)

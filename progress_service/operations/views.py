"""The endpoints for those who run the service. They need no token and are not to be reached through the gateway."""

from functools import cache

from alembic.script import ScriptDirectory
from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import Connection, text

from progress_service import metrics, openapi, storage
from progress_service.endpoint import Answer, respond
from progress_service.errors import unavailable

operations = Blueprint("operations", __name__)


@operations.get("/healthz")
def healthz() -> Response:
    """Tell that the process lives."""
    return respond(Answer({"status": "ok"}))


@operations.get("/readyz")
def readyz() -> Response:
    """Tell whether the database can be reached and has the newest migration."""
    if storage.read(_revision) != _newest_revision(current_app.extensions["migrate"].directory):
        raise unavailable()
    return respond(Answer({"status": "ready"}))


@operations.get("/metrics")
def read_metrics() -> Response:
    """Tell Prometheus how many requests there were, and how long they took."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


@operations.get("/openapi.json")
def read_description() -> Response:
    """Describe the API: this document."""
    return respond(Answer(openapi.document(current_app)))


def _revision(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


@cache
def _newest_revision(directory: str) -> str | None:
    return ScriptDirectory(directory).get_current_head()

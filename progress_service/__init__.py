"""How far each learner is: a service that records, calculates and analyses learning progress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask

from progress_service import cli, config
from progress_service.analytics.views import analytics
from progress_service.catalog.views import catalog
from progress_service.changes import settings
from progress_service.changes.views import changes
from progress_service.operations import logs, metrics
from progress_service.operations.views import operations
from progress_service.progress.views import progress
from progress_service.store import database, housekeeping, replicas
from progress_service.store.database import db, migrate
from progress_service.web import auth, headers, problems

PACKAGE = Path(__file__).parent
MIGRATIONS = next(path for path in (PACKAGE / "migrations", PACKAGE.parent / "migrations") if path.is_dir())


def create_app(overrides: Mapping[str, Any] | None = None) -> Flask:
    """Make the application; settings in `overrides` win over those from the environment."""
    app = Flask(__name__, static_folder=None)
    app.url_map.merge_slashes = False  # a path with an empty part is unknown, and is not redirected
    config.load(app, overrides)
    logs.register(app)
    metrics.register(app)
    headers.register(app)
    problems.register(app)
    auth.register(app)
    database.prepare(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    housekeeping.prepare(app)
    replicas.prepare(app)
    settings.prepare(app)
    app.register_blueprint(progress)
    app.register_blueprint(analytics)
    app.register_blueprint(catalog)
    app.register_blueprint(changes)
    app.register_blueprint(operations)
    cli.register(app)
    return app

"""The endpoints for those who run the service. They need no token and are not to be reached through the gateway."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST

from progress_service import metrics, openapi
from progress_service.endpoint import Answer, respond
from progress_service.errors import unavailable
from progress_service.operations import readiness

# What the page of the documentation needs is served below it.
operations = Blueprint(
    "operations", __name__, static_folder=str(files("flask_swagger_ui") / "dist"), static_url_path="/docs"
)
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null})'
PAGE = f"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Progress service</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>{START}</script>
</html>
"""
PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline';"
    f" script-src 'self' 'sha256-{b64encode(sha256(START.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@operations.get("/healthz")
def healthz() -> Response:
    """Tell that the process lives."""
    return respond(Answer({"status": "ok"}))


@operations.get("/readyz")
def readyz() -> Response:
    """Tell whether the database can be reached and written to, and whether this version can work with its schema."""
    if fault := readiness.fault():
        current_app.logger.warning("not ready: %s", fault)
        raise unavailable(detail=fault)
    return respond(Answer({"status": "ready"}))


@operations.get("/metrics")
def read_metrics() -> Response:
    """Tell Prometheus how many requests there were, and how long they took."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


@operations.get("/openapi.json")
def read_description() -> Response:
    """Describe the API: this document."""
    return respond(Answer(openapi.document(current_app)))


@operations.get("/docs")
def read_docs() -> Response:
    """Show this document to people, with nothing from elsewhere."""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": PAGE_POLICY})

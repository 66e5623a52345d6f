"""The endpoints for the people who run the service. They need no token, and the gateway must not forward to them."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Literal

from flask import Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST

from progress_service.operations import metrics, readiness
from progress_service.web.endpoint import Answer, Blueprint, answers, open_to_all, refuses, respond
from progress_service.web.openapi.document import describe
from progress_service.web.problems import UNAVAILABLE, unavailable
from progress_service.web.serialization import Document, encode

# The files of the page of the documentation are served below its path.
operations = Blueprint(
    "operations", __name__, static_folder=str(files("flask_swagger_ui") / "dist"), static_url_path="/docs"
)
START = (
    'SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null,'
    " tryItOutEnabled: true, persistAuthorization: true})"
)
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


class HealthDocument(Document):
    """The process lives."""

    status: Literal["ok"]


class ReadinessDocument(Document):
    """The service can do its work."""

    status: Literal["ready"]


@operations.get("/healthz")
@open_to_all
@answers(HealthDocument, 200)
def healthz() -> Response:
    """Tell that the process lives."""
    return respond(Answer(HealthDocument("ok")))


@operations.get("/readyz")
@open_to_all
@answers(ReadinessDocument, 200)
@refuses(UNAVAILABLE)
def readyz() -> Response:
    """Tell whether the service can work with its database, and is not about to stop."""
    if fault := readiness.fault():
        current_app.logger.warning("not ready: %s", fault)
        raise unavailable(detail=fault)
    return respond(Answer(ReadinessDocument("ready")))


@operations.get("/metrics")
@open_to_all
@answers({"type": "string"}, 200, content_type="text/plain")
def read_metrics() -> Response:
    """Tell Prometheus how the service works: requests, transactions, workers, and the state of the database."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)


@operations.get("/openapi.json")
@open_to_all
@answers({"type": "object"}, 200)
def read_description() -> Response:
    """Describe the API: this document."""
    return Response(encode(describe(current_app)), content_type="application/json")


@operations.get("/docs")
@open_to_all
@answers({"type": "string"}, 200, content_type="text/html")
def read_docs() -> Response:
    """Show this document in a browser; nothing is loaded from elsewhere."""
    return Response(PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": PAGE_POLICY})

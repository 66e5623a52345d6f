"""A log line for each request, with the id of the request, which the gateway gives or the service makes."""

import logging
import re
import time
from uuid import uuid4

from flask import Flask, Response, current_app, g, request

_REQUEST_ID = re.compile(r"[!-~]{1,128}", re.ASCII)


class RequestId(logging.Filter):
    """Puts the id of the request into every log line."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = g.get("request_id", "-") if g else "-"
        return True


def register(app: Flask) -> None:
    """Give every request an id, log the end of the request, and send the id with the answer."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestId())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(request_id)s %(message)s"))
    app.logger.handlers = [handler]
    app.logger.propagate = False
    app.logger.setLevel(logging.INFO)
    app.before_request(_name_request)
    app.after_request(_log_request)


def _name_request() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid4())
    g.began = time.perf_counter()


def _log_request(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    elapsed = 1000 * (time.perf_counter() - g.began)
    rule = request.url_rule.rule if request.url_rule else "unmatched"
    current_app.logger.info("%s %s %d %.1fms", request.method, rule, response.status_code, elapsed)
    return response

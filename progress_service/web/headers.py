"""The headers of answers: each must not be cached, since it is a caller's data, and no browser may run it."""

from flask import Flask, Response

from progress_service import facts

POSITION = "Progress-Position"
"""The header with the position of a write in PostgreSQL's log: a read that has it too sees the write."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask) -> None:
    """Give these headers to every answer, refusals and faults included, unless its view has set them.

    The answer of a write also has its position, where replicas are read.
    """

    @app.after_request
    def complete(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if position := facts.current().spent.position:
            response.headers[POSITION] = position
        return response

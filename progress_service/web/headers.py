"""The headers of every answer: it must not be cached, since it is a caller's data, and no browser may run it."""

from flask import Flask, Response

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask) -> None:
    """Give these headers to every answer, refusals and faults included, unless its view has set them."""

    @app.after_request
    def complete(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

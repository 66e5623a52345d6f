"""The headers of every answer: answers are one caller's data, to be kept by nobody and to be run by no browser."""

from flask import Flask, Response

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def register(app: Flask) -> None:
    """Give every answer these headers, refusals and faults too, where its view has not said otherwise."""
    app.after_request(_complete)


def _complete(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response

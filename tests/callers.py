"""The people and programs that call the service in tests."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from typing import Any

import jwt
from flask import Flask, has_app_context
from werkzeug.test import TestResponse

WEBHOOK_KEY = "YSBrZXkgdGhhdCBvbmx5IHRoZSB0ZXN0cyBrbm93ISE="
KEY = "a key that only the tests know, long enough for HS256"


def token(sub: str, role: str, **claims: Any) -> str:
    """Return a token that the service accepts for a day, unless the `claims` say otherwise."""
    exp = datetime.now(UTC) + timedelta(days=1)
    return jwt.encode({"sub": sub, "role": role, "exp": exp, **claims}, KEY, algorithm="HS256")


def handmade(claims: Any, header: Any = None, key: str | bytes = KEY) -> str:
    """Return a token of HS256 whose parts, as JSON or as given bytes, may be such as libraries refuse to write."""

    def encode(part: Any) -> str:
        text = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    usual = {"alg": "HS256", "typ": "JWT"}
    header = usual | (header or {}) if isinstance(header, dict | None) else header
    message = f"{encode(header)}.{encode(claims)}"
    digest = hmac.digest(key.encode() if isinstance(key, str) else key, message.encode(), hashlib.sha256)
    return f"{message}.{encode(digest)}"


class Caller:
    """Somebody with a role and a name, or nobody; their calls share nothing but the database."""

    def __init__(self, app: Flask, role: str = "", sub: str = "") -> None:
        self.app = app
        self.sub = sub
        self.headers = {"Authorization": f"Bearer {token(sub, role)}"} if role else {}

    def call(self, method: str, path: str, **kwargs: Any) -> TestResponse:
        """Send one request and read the whole answer; `kwargs` are those of Flask's test client."""
        # Requests share an open context, and with it `g`: the next caller would pass for the last one.
        assert not has_app_context(), "leave the app context before calling the service"
        headers = self.headers | kwargs.pop("headers", {})
        kwargs.setdefault("buffered", True)
        return self.app.test_client().open(path, method=method, headers=headers, **kwargs)

    get: partialmethod[TestResponse] = partialmethod(call, "GET")
    post: partialmethod[TestResponse] = partialmethod(call, "POST")
    put: partialmethod[TestResponse] = partialmethod(call, "PUT")
    patch: partialmethod[TestResponse] = partialmethod(call, "PATCH")
    delete: partialmethod[TestResponse] = partialmethod(call, "DELETE")


def bearing(app: Flask, credentials: str) -> Caller:
    """Return somebody who calls with this Authorization header."""
    caller = Caller(app)
    caller.headers = {"Authorization": credentials}
    return caller


def read(caller: Caller, path: str) -> Any:
    """Return a document that the caller may read."""
    response = caller.get(path)
    assert response.status_code == 200, response.text
    return response.get_json()

"""How answers become JSON: by orjson, with times in UTC that end in Z."""

from typing import Any

import orjson
from flask.json.provider import JSONProvider as FlaskJSONProvider


class JSONProvider(FlaskJSONProvider):
    """JSON as orjson writes and reads it; request bodies are read more strictly, in `validation`."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return encode(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return orjson.loads(s)


def encode(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)

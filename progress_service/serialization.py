"""How answers become JSON: compact, in UTF-8, with times in UTC that end in Z."""

from typing import Any

import msgspec


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)

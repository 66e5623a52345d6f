"""Strict fields for the schemas of requests, and the faults that they find.

marshmallow's own fields accept too much, even with `strict`: "50" as an integer, 2026-1-3 as a date, a time without an
offset, and a line end where a pattern has `$`. These fields convert nothing: a number is a JSON number and means the
decimal that was written. The metadata of each field describes in JSON Schema what it accepts.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from itertools import islice
from typing import Any, NoReturn, TypeVar

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.exceptions import SCHEMA

from progress_service.web.problems import Fault

RESERVED_USER_IDS = {"me", "stats", "batch", "events"}
RESERVED_MODULE_IDS = {"export"}
"""Words that paths have in the place of an identifier."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_SKEW = timedelta(minutes=5)
"""The most that a caller's clock may be ahead of this service's clock."""
HUNDREDTH = Decimal("0.01")
MOST_FAULTS = 10_000
"""The most faults that an answer names. A batch in which every field is wrong has fewer."""

LONGEST_IDENTIFIER = 255
IDENTIFIER_CHARACTER = "[A-Za-z0-9._:@|+~'-]"

_IDENTIFIER = re.compile(rf"[A-Za-z0-9_-]{IDENTIFIER_CHARACTER}{{0,{LONGEST_IDENTIFIER - 1}}}")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LEAP_SECOND = re.compile(r":60(\.\d+)?(?=[Z+-])", re.ASCII)
_INTEGER = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class StrictSchema(Schema):
    """A schema that refuses unknown fields, and loads `contentId` as `content_id`."""

    error_messages = {"unknown": "Unknown field."}
    keywords: Mapping[str, Any] = {}
    """Keywords of JSON Schema about the whole object."""

    class Meta:
        unknown = RAISE

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Load each field under its name in Python."""
        field_obj.attribute = snake_case(field_name)


def snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)


def is_identifier(value: str) -> bool:
    return _IDENTIFIER.fullmatch(value) is not None


def is_user_id(value: str) -> bool:
    return is_identifier(value) and value not in RESERVED_USER_IDS


Value = TypeVar("Value")


class StrictField(fields.Field[Value]):
    """A field that converts nothing, and describes in JSON Schema what it accepts."""

    accepts: Mapping[str, Any]

    def __init__(self, *, description: str = "", **kwargs: Any) -> None:
        described = {"description": description} if description else {}
        super().__init__(metadata={**self.accepts, **described}, **kwargs)


class Text(StrictField[str]):
    """A string of at most `limit` characters. NUL is refused, because PostgreSQL cannot store it."""

    default_error_messages = {
        "invalid": "Must be a string.",
        "long": "Must have at most {limit} characters.",
        "characters": "Contains characters that are not text.",
    }

    def __init__(self, limit: int, **kwargs: Any) -> None:
        self.limit = limit
        self.accepts = {"type": "string", "maxLength": limit, "pattern": r"^[^\u0000]*$"}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if len(value) > self.limit:
            raise self.make_error("long", limit=self.limit)
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise self.make_error("characters")
        return value


class Pattern(StrictField[str]):
    """A string that matches a regular expression from end to end."""

    default_error_messages = {"invalid": "Must be a string.", "pattern": "Must match {pattern}."}

    def __init__(self, pattern: str, *, accepts: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.pattern = re.compile(pattern, re.ASCII)
        self.accepts = {"type": "string", "pattern": f"^{pattern}$", **(accepts or {})}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        if not self.pattern.fullmatch(value):
            raise self.make_error("pattern", pattern=f"^{self.pattern.pattern}$")
        return value


class Identifier(Pattern):
    """An identifier that another service gave; reserved words are refused."""

    default_error_messages = {"reserved": "Is a reserved word."}
    reserved: Set[str] = frozenset()

    def __init__(self, **kwargs: Any) -> None:
        limits = {"minLength": 1, "maxLength": LONGEST_IDENTIFIER}
        exceptions = {"not": {"type": "string", "enum": sorted(self.reserved)}} if self.reserved else {}
        super().__init__(_IDENTIFIER.pattern, accepts={**limits, **exceptions}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        identifier = super()._deserialize(value, attr, data, **kwargs)
        if identifier in self.reserved:
            raise self.make_error("reserved")
        return identifier


class UserId(Identifier):
    """An identifier of a user."""

    reserved = RESERVED_USER_IDS


class ModuleId(Identifier):
    """An identifier of a module."""

    reserved = RESERVED_MODULE_IDS


class Number(StrictField[int]):
    """A JSON number in a range, with at most `places` decimals. It loads as an integer in units of its last decimal.

    With `places=2`, 33.7 loads as 3370. With `floor=True` further decimals are dropped instead of refused.
    """

    default_error_messages = {
        "invalid": "Must be a number.",
        "range": "Must be from {least} to {most}.",
        "integer": "Must be a whole number.",
        "places": "Must have at most {places} decimals.",
    }

    def __init__(self, least: int | Decimal, most: int, *, places: int = 0, floor: bool = False, **kwargs: Any) -> None:
        self.least, self.most, self.places, self.floor = least, most, places, floor
        self.unit = Decimal(1).scaleb(-places)
        # No `multipleOf` 0.01: many validators count in binary fractions, where 33.33 is no multiple of it.
        self.accepts = {
            "type": "number" if places or floor else "integer",
            "minimum": least if isinstance(least, int) else float(least),
            "maximum": most,
        }
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not isinstance(value, int | Decimal) or isinstance(value, bool):
            raise self.make_error("invalid")
        if not self.least <= value <= self.most:
            raise self.make_error("range", least=self.least, most=self.most)
        if isinstance(value, int):
            return value * int(10**self.places)
        kept = value.quantize(self.unit, ROUND_FLOOR)
        if kept != value and not self.floor:
            raise self.make_error("places" if self.places else "integer", places=self.places)
        return int(kept.scaleb(self.places))


class Truth(StrictField[bool]):
    """A JSON boolean."""

    accepts = {"type": "boolean"}
    default_error_messages = {"invalid": "Must be true or false."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Instant(StrictField[datetime]):
    """An RFC 3339 time with an offset, from 1970 to now; the caller's clock may be five minutes ahead.

    A leap second, the 61st second of a day's last minute, loads as the last microsecond of that minute.
    """

    accepts = {"type": "string", "format": "date-time"}
    default_error_messages = {
        "invalid": "Must be a time with an offset, such as 2026-01-31T12:00:00Z.",
        "early": "Must be in 1970 or later.",
        "late": "Must not be more than 5 minutes ahead.",
    }

    def __init__(self, *, description: str, **kwargs: Any) -> None:
        rule = "With an offset, in 1970 or later, and at most 5 minutes ahead."
        super().__init__(description=f"{description} {rule}", **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
            raise self.make_error("invalid")
        text, is_leap = _LEAP_SECOND.subn(":59.999999", value.upper())
        try:
            instant = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise self.make_error("invalid") from error
        if is_leap and (instant.hour, instant.minute) != (23, 59):
            raise self.make_error("invalid")
        if instant < EPOCH:
            raise self.make_error("early")
        if instant > datetime.now(UTC) + CLOCK_SKEW:
            raise self.make_error("late")
        return instant


class QueryInteger(StrictField[int]):
    """A whole number in a query parameter."""

    default_error_messages = {"invalid": "Must be a whole number from {least} to {most}."}

    def __init__(self, least: int, most: int, **kwargs: Any) -> None:
        self.least, self.most = least, most
        self.accepts = {"type": "integer", "minimum": least, "maximum": most}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if not _INTEGER.fullmatch(value) or not self.least <= int(value) <= self.most:
            raise self.make_error("invalid", least=self.least, most=self.most)
        return int(value)


class QueryIdentifiers(StrictField[list[str]]):
    """Identifiers in a query parameter, separated by commas."""

    default_error_messages = {"invalid": "Must be 1 to {most} identifiers, with commas."}

    def __init__(self, most: int, **kwargs: Any) -> None:
        self.most = most
        identifier = _IDENTIFIER.pattern
        self.accepts = {"type": "string", "pattern": f"^{identifier}(?:,{identifier}){{0,{most - 1}}}$"}
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[str]:
        identifiers: list[str] = value.split(",")
        if len(identifiers) > self.most or not all(map(is_identifier, identifiers)):
            raise self.make_error("invalid", most=self.most)
        return identifiers


class QueryPercentage(StrictField[int]):
    """A percentage in a query parameter. It loads in hundredths, rounded down, as percentages are shown."""

    accepts = {"type": "number", "minimum": 0, "maximum": 100}
    default_error_messages = {"invalid": "Must be a number from 0 to 100."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = written_number(value)
        if isinstance(number, str) or not 0 <= number <= 100:
            raise self.make_error("invalid")
        return int(number // HUNDREDTH)


class QueryDate(StrictField[date]):
    """A date in a query parameter."""

    accepts = {"type": "string", "format": "date"}
    default_error_messages = {"invalid": "Must be a date, such as 2026-01-31."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> date:
        try:
            if not _DATE.fullmatch(value):
                raise ValueError
            return date.fromisoformat(value)
        except ValueError as error:
            raise self.make_error("invalid") from error


def parse_json(body: bytes) -> Any:
    """Parse JSON; numbers are exact integers or decimals. Raises ValueError for a text that is not JSON."""
    return _parse(_DECODER.decode, body.decode())


def parse_first_json(text: str, start: int) -> tuple[Any, int]:
    """Parse the first JSON value from `start` on, as `parse_json` does; return it and the index where it ends."""
    parsed: tuple[Any, int] = _parse(_DECODER.raw_decode, text, start)
    return parsed


def _parse(parse: Callable[..., Any], *given: Any) -> Any:
    try:
        return parse(*given)
    except (RecursionError, ArithmeticError) as error:
        raise ValueError("too deep, or a number too large") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)


def written_number(text: str) -> int | Decimal | str:
    """Return the number that a text stands for, or the text itself if it is no number."""
    try:
        return parse_json(text.encode()) if len(text) < 100 and _NUMBER.fullmatch(text) else text
    except ValueError:
        return text


def faults_of(error: ValidationError) -> list[Fault]:
    """List the faults that a schema found, each with its JSON pointer, up to `MOST_FAULTS`."""
    return list(islice(_walk("", error.messages), MOST_FAULTS))


def _walk(pointer: str, messages: Any) -> Iterator[Fault]:
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            # Messages about the object itself are under a name that a field may have, too.
            is_field = key != SCHEMA or inner == [StrictSchema.error_messages["unknown"]]
            step = "/" + str(key).replace("~", "~0").replace("/", "~1") if is_field else ""
            yield from _walk(pointer + step, inner)
    else:
        for message in messages:
            yield Fault(pointer.encode(errors="replace").decode(), message)

"""How answers become JSON: typed documents that are the description and the value, with times in UTC that end in Z."""

from collections.abc import Iterable
from typing import Any, Self

import msgspec
from msgspec.structs import astuple

SUFFIX = "Document"


class Document(msgspec.Struct, rename="camel"):
    """An object of an answer; its fields have the types, bounds and descriptions that callers may rely on."""

    @classmethod
    def extending(cls, document: "Document", **fields: Any) -> Self:
        """Return a document of a class that extends another one's: with its values, and those of its own fields."""
        return cls(*astuple(document), **fields)


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def reference(document: type[Document]) -> dict[str, str]:
    """Refer to the description of a document, which is named like its class, but without the suffix."""
    return {"$ref": f"#/components/schemas/{document.__name__.removesuffix(SUFFIX)}"}


def json_schemas(documents: Iterable[type[Document]]) -> dict[str, dict[str, Any]]:
    """Describe documents, and all that they hold, in JSON Schema, by the names that `reference` gives them."""
    _, described = msgspec.json.schema_components(documents, ref_template="#/components/schemas/{name}")
    # Every name is a whole key or ends a reference.
    schemas: dict[str, dict[str, Any]] = msgspec.json.decode(encode(described).replace(f'{SUFFIX}"'.encode(), b'"'))
    for schema in schemas.values():
        del schema["title"]  # which is the name again
    return schemas

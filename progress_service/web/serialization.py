"""The JSON of answers: typed documents are both description and value; times are in UTC and end in Z."""

from collections.abc import Iterable
from typing import Any, Self

import msgspec
from msgspec.structs import astuple

SUFFIX = "Document"


class Document(msgspec.Struct, rename="camel"):
    """An object of an answer; its fields have the types, bounds and descriptions that callers may rely on."""

    @classmethod
    def extending(cls, document: "Document", **added: Any) -> Self:
        """Make a document from a document of the class above, and the fields that this class adds."""
        return cls(*astuple(document), **added)


def encode(value: Any) -> bytes:
    """Write a document, or any other value, as JSON in UTF-8."""
    return msgspec.json.encode(value)


def reference(document: type[Document]) -> dict[str, str]:
    """Return a reference to the description of a document, which has the name of the class without the suffix."""
    return {"$ref": f"#/components/schemas/{document.__name__.removesuffix(SUFFIX)}"}


def json_schemas(documents: Iterable[type[Document]]) -> dict[str, dict[str, Any]]:
    """Describe documents, and the documents within them, in JSON Schema, by the names that `reference` uses."""
    _, described = msgspec.json.schema_components(documents, ref_template="#/components/schemas/{name}")
    # A name is a whole key, or the end of a reference.
    schemas: dict[str, dict[str, Any]] = msgspec.json.decode(encode(described).replace(f'{SUFFIX}"'.encode(), b'"'))
    for schema in schemas.values():
        del schema["title"]  # the name again
    return schemas

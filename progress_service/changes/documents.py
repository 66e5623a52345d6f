"""The document of the feed of changes."""

from datetime import datetime
from typing import Annotated, NamedTuple, Self

from msgspec import Meta

from progress_service.changes.queries import Feed, Place
from progress_service.web.documents import ChangeDocument
from progress_service.web.serialization import Document


class Cursor(NamedTuple):
    """A reader's place, and when the reader was there, in seconds since 1970."""

    place: Place
    seconds: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a cursor that has the form of a written cursor."""
        settled_after, id_, seconds = map(int, text.split("."))
        return cls(Place(settled_after, id_), seconds)

    @property
    def written(self) -> str:
        return ".".join(map(str, (*self.place, self.seconds)))


class ChangesDocument(Document):
    """Changes in their order, and where to go on."""

    changes: list[ChangeDocument]
    cursor: Annotated[str, Meta(description="Give it as `after`, to get what comes next.")]
    more: Annotated[bool, Meta(description="Whether to read on at once; `changes` may be empty all the same.")]

    @classmethod
    def of(cls, feed: Feed, now: datetime) -> Self:
        cursor = Cursor(feed.place, int(now.timestamp()))
        return cls(list(map(ChangeDocument.of, feed.changes)), cursor.written, feed.has_more)

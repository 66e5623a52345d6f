"""The documents of the feed of changes and of webhooks."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, NamedTuple, Self

from msgspec import Meta

from progress_service.changes.queries import Feed
from progress_service.store.webhooks import MOST_COUNTED, Pending, Place, StoredWebhook
from progress_service.web.documents import ChangeDocument, Time
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


class WebhookDocument(Document):
    """A program that is told of changes, and how that goes."""

    id: str
    url: str
    types: Annotated[list[str] | None, Meta(description="Only these types; null: all.")]
    module_ids: Annotated[list[str] | None, Meta(description="Only these modules, and changes of none; null: all.")]
    active: Annotated[bool, Meta(description="Whether it is told now; the service itself gives up after 5 days.")]
    pending: Annotated[int, Meta(description=f"How many of the next {MOST_COUNTED:,} changes wait for it.")]
    failing_since: Annotated[Time | None, Meta(description="Since when no try has succeeded.")]
    last_status: Annotated[int | None, Meta(description="The status of its last answer; null: it gave none.")]
    secret: Annotated[str | None, Meta(description="What signs the messages. It is told once, when it is made.")]

    @classmethod
    def of(cls, webhook: StoredWebhook, pending: Pending) -> Self:
        return cls(
            id=webhook.id,
            url=webhook.url,
            types=webhook.types,
            module_ids=webhook.module_ids,
            active=webhook.active,
            pending=pending.number,
            failing_since=webhook.failing_since,
            last_status=webhook.last_status,
            secret=None,
        )


class WebhookListDocument(Document):
    """All webhooks, by their ids."""

    webhooks: list[WebhookDocument]

    @classmethod
    def of(cls, webhooks: Iterable[tuple[StoredWebhook, Pending]]) -> Self:
        return cls([WebhookDocument.of(*webhook) for webhook in webhooks])

"""The changes are delivered to the webhooks: to each in order, at least once, and by one deliverer at a time.

A deliverer takes a lease of a webhook and stores, after each answer, how far the webhook has been told; this renews the
lease. A deliverer that is killed leaves a lease that ends by itself, and another one goes on from the stored place. A
lease needs no connection of its own, so it works behind every pooler, and on both databases.
"""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from threading import Event
from typing import Any
from uuid import uuid4

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from progress_service.changes import queries, sending
from progress_service.changes.sending import ANSWER_SECONDS, NotSent
from progress_service.changes.settings import Settings
from progress_service.store import database, webhooks
from progress_service.store.journal import Told
from progress_service.store.webhooks import Place, StoredWebhook

PAUSE = 0.5
"""The seconds between two looks for what is to be sent."""
MOST_AT_ONCE = 32
"""How many webhooks a deliverer sends to at the same time."""
CHUNK = 100
"""How many changes are read at once."""
LEASE = timedelta(seconds=45)
MARGIN = timedelta(seconds=ANSWER_SECONDS + 5)
"""The least that a lease must last when a change is sent, so that the answer comes before another deliverer begins."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=8), timedelta(hours=1)
GIVEN_UP_AFTER = timedelta(days=5)


class Deliverer:
    """Delivers to all webhooks of an application's database until it is stopped."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._id = uuid4()
        self._stopped = Event()
        self._serving: set[str] = set()

    def stop(self) -> None:
        """Finish what is being sent, and return from `run`."""
        self._stopped.set()

    def run(self, *, once: bool = False) -> None:
        """Deliver until stopped; with `once`, until nothing is left that could be sent now.

        While the database is away it waits; with `once` it raises SQLAlchemyError.
        """
        with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
            while not self._stopped.is_set():
                serving = set(self._serving)
                try:
                    due = database.read(partial(webhooks.due, now=datetime.now(UTC)))
                except SQLAlchemyError as error:
                    if once:
                        raise
                    self._app.logger.warning("no webhook is looked for after %s", type(error).__name__)
                    due = []
                if once and not due and not serving:
                    return
                for id_ in set(due) - self._serving:
                    self._serving.add(id_)
                    pool.submit(self._serve, id_)
                self._stopped.wait(PAUSE)

    def _serve(self, id_: str) -> None:
        """Deliver to a webhook what waits for it. After a fault its lease stays until it ends by itself."""
        try:
            with self._app.app_context():
                now = datetime.now(UTC)
                leased = database.write(partial(webhooks.lease, id_=id_, by=self._id, now=now, until=now + LEASE))
                if leased:
                    self._deliver(leased)
                    self._store(id_, leased_by=None, leased_until=None)
        except Exception as error:
            self._app.logger.error("webhook %s is left after %s", id_, type(error).__name__)
        finally:
            self._serving.discard(id_)

    def _deliver(self, webhook: StoredWebhook) -> None:
        """Send what waits, until nothing waits, a try fails, the lease is about to end, or the webhook is no more."""
        current: StoredWebhook | None = webhook
        has_more = True
        while current and has_more:
            types, module_ids = current.types, current.module_ids
            feed = database.read(
                partial(queries.feed, after=current.place, limit=CHUNK, types=types, module_ids=module_ids)
            )
            for told, place in zip(feed.changes, feed.places, strict=True):
                if self._stopped.is_set() or not current.is_leased_until(datetime.now(UTC) + MARGIN):
                    return
                current = self._tell(current, told, place)
                if current is None:
                    return
            current, has_more = self._store_place(current, feed.place), feed.has_more

    def _tell(self, webhook: StoredWebhook, told: Told, place: Place) -> StoredWebhook | None:
        """Send a change, and store the outcome; return the webhook if it may be told more."""
        status, reason = None, ""
        try:
            status = sending.send(Settings.current(), webhook, told, datetime.now(UTC))
            reason = f"status {status}"
        except NotSent as error:
            reason = str(error)
        if status is not None and HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return self._store_place(webhook, place, failing_since=None, next_try_at=None, last_status=status)
        now = datetime.now(UTC)
        since = webhook.failing_since or now
        pause = random.uniform(0.5, 1) * min(max(now - since, FIRST_PAUSE), LONGEST_PAUSE)
        failure = {"failing_since": since, "next_try_at": now + pause, "last_status": status}
        if status == HTTPStatus.GONE or now - since >= GIVEN_UP_AFTER:
            self._app.logger.error("webhook %s is given up: %s", webhook.id, reason)
            failure["active"] = False
        else:
            self._app.logger.warning("webhook %s is tried again later: %s", webhook.id, reason)
        self._store(webhook.id, **failure)
        return None

    def _store_place(self, webhook: StoredWebhook, place: Place, **values: Any) -> StoredWebhook | None:
        """Store how far a webhook has been told, and renew its lease; return it if it may be told more."""
        until = datetime.now(UTC) + LEASE
        told = {"settled_after": place.settled_after, "change_id": place.id, "leased_until": until}
        stored = self._store(webhook.id, **told, **values)
        return stored if stored and stored.active else None

    def _store(self, id_: str, **values: Any) -> StoredWebhook | None:
        """Change a webhook, unless the lease is another's; return it if it is changed."""
        return database.write(lambda connection: webhooks.change_leased(connection, id_, self._id, **values))

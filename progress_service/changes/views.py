"""The endpoints by which other services hear of changes: a feed that they read, and webhooks that are called."""

from datetime import timedelta

import msgspec
from flask import current_app

from progress_service.changes import queries
from progress_service.changes.documents import ChangesDocument, Cursor, WebhookDocument, WebhookListDocument
from progress_service.changes.hosts import find_host
from progress_service.changes.queries import START, Feed
from progress_service.changes.schemas import NOW, ChangesQuery, RequestedWebhookSchema
from progress_service.changes.settings import Settings
from progress_service.changes.signing import BOTH_VALID, Signer
from progress_service.store import webhooks
from progress_service.store.webhooks import StoredWebhook
from progress_service.web import problems
from progress_service.web.auth import READ_CHANGES, READ_WEBHOOKS, WRITE_WEBHOOKS
from progress_service.web.endpoint import (
    NOTHING,
    Answer,
    Blueprint,
    Call,
    answers,
    refuses,
    requires_token,
    takes,
    takes_query,
)
from progress_service.web.problems import Fault, Problem, or_not_found

changes = Blueprint("changes", __name__, url_prefix="/api")
NO_WEBHOOK = "There is no such webhook, or its host is no longer allowed."


@changes.get("/changes")
@requires_token(READ_CHANGES)
@takes_query(ChangesQuery())
@answers(ChangesDocument, 200)
@refuses(problems.GONE)
def read_changes(call: Call) -> Answer:
    """Read what happened to learners and modules, from a cursor on; without a cursor, from the first that is kept.

    A reader that goes on from its cursor gets every change once, and a learner's changes in the order in which they
    happened. A change may appear later than it happened, while a transaction that began before it has not ended.
    """
    after = call.query.get("after")
    if after == NOW:
        return Answer(ChangesDocument.of(Feed([], [], queries.end(call.connection), has_more=False), call.now))
    place = START
    if after is not None:
        cursor = Cursor.read(after)
        kept = timedelta(days=current_app.config["CHANGES_DAYS"])
        is_old = cursor.seconds < (call.now - kept).timestamp()
        if is_old or not queries.is_known(call.connection, cursor.place):
            raise Problem(problems.GONE)
        place = cursor.place
    types, module_id = call.query["types"], call.query["module_id"]
    feed = queries.feed(
        call.connection,
        place,
        call.query["limit"],
        types=None if types is None else types.split(","),
        module_ids=None if module_id is None else [module_id],
    )
    return Answer(ChangesDocument.of(feed, call.now))


@changes.get("/webhooks")
@requires_token(READ_WEBHOOKS)
@answers(WebhookListDocument, 200)
def list_webhooks(call: Call) -> Answer:
    """List the webhooks."""
    found = webhooks.listed(call.connection)
    return Answer(WebhookListDocument.of((webhook, webhooks.pending(call.connection, webhook)) for webhook in found))


@changes.get("/webhooks/<webhook_id>")
@requires_token(READ_WEBHOOKS)
@answers(WebhookDocument, 200)
def read_webhook(call: Call, webhook_id: str) -> Answer:
    """Read a webhook: what waits for it, and since when it fails."""
    webhook = or_not_found(webhooks.find(call.connection, webhook_id), NO_WEBHOOK)
    return Answer(WebhookDocument.of(webhook, webhooks.pending(call.connection, webhook)))


@changes.put("/webhooks/<webhook_id>")
@requires_token(WRITE_WEBHOOKS)
@takes(RequestedWebhookSchema())
@answers(WebhookDocument, 201, 200)
def put_webhook(call: Call, webhook_id: str) -> Answer:
    """Make a webhook, or change it; it gets what happens from its making on.

    201 if the webhook is new, 200 otherwise. The answer to its making has the secret that signs its messages, and no
    other answer has it; the answer to a repeat with the same Idempotency-Key has not. Each message is a CloudEvent
    (structured JSON), signed as Standard Webhooks say. It may come more than once, always with the same id.
    """
    signer = _admitted(call.body["url"])
    if signer is None:
        raise Problem(problems.VALIDATION_FAILED, faults=[Fault("/url", "Must be on a host that is allowed.")])
    before = webhooks.lock(call.connection, webhook_id)
    if before is None:
        secret = signer.make()
        end = queries.end(call.connection)
        made = webhooks.make(call.connection, webhook_id, end, **call.body, secret=secret.encrypted)
        return _telling(call, made, secret.plain, 201)
    begins_anew = before.url != call.body["url"] or (call.body["active"] and not before.active)
    forgotten = {"failing_since": None, "next_try_at": None} if begins_anew else {}
    after = webhooks.change(call.connection, webhook_id, **call.body, **forgotten)
    assert after is not None
    return Answer(WebhookDocument.of(after, webhooks.pending(call.connection, after)))


@changes.post("/webhooks/<webhook_id>/secret")
@requires_token(WRITE_WEBHOOKS)
@answers(WebhookDocument, 200)
def replace_secret(call: Call, webhook_id: str) -> Answer:
    """Give a webhook a new secret. For a day messages are signed with both, the new one first."""
    webhook = or_not_found(webhooks.lock(call.connection, webhook_id), NO_WEBHOOK)
    signer = or_not_found(_admitted(webhook.url), NO_WEBHOOK)
    secret = signer.make()
    changed = webhooks.change(
        call.connection,
        webhook_id,
        secret=secret.encrypted,
        previous_secret=webhook.secret,
        previous_until=call.now + BOTH_VALID,
    )
    assert changed is not None
    return _telling(call, changed, secret.plain, 200)


@changes.delete("/webhooks/<webhook_id>")
@requires_token(WRITE_WEBHOOKS)
@answers(None, 204)
def remove_webhook(call: Call, webhook_id: str) -> Answer:
    """Remove a webhook; what waits for it is not sent any more."""
    webhooks.remove(call.connection, webhook_id)
    return NOTHING


def _admitted(url: str) -> Signer | None:
    """Return the signer of messages to a URL, or None if its host is not allowed."""
    settings = Settings.current()
    return settings.signer if find_host(settings.hosts, url) else None


def _telling(call: Call, webhook: StoredWebhook, secret: str, status: int) -> Answer:
    """Answer a webhook with its new secret, which a repeat does not get: stored answers can be read in the database."""
    document = WebhookDocument.of(webhook, webhooks.pending(call.connection, webhook))
    return Answer(msgspec.structs.replace(document, secret=secret), status, kept=document)

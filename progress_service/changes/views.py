"""The endpoint by which other services hear of changes."""

from datetime import timedelta

from flask import current_app

from progress_service.changes import queries
from progress_service.changes.documents import ChangesDocument, Cursor
from progress_service.changes.queries import START, Feed
from progress_service.changes.schemas import NOW, ChangesQuery
from progress_service.web import problems
from progress_service.web.auth import READ_CHANGES
from progress_service.web.endpoint import Answer, Blueprint, Call, answers, refuses, requires_token, takes_query
from progress_service.web.problems import Problem

changes = Blueprint("changes", __name__, url_prefix="/api/changes")


@changes.get("")
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
        return Answer(ChangesDocument.of(Feed([], queries.end(call.connection), has_more=False), call.now))
    place = START
    if after is not None:
        cursor = Cursor.read(after)
        kept = timedelta(days=current_app.config["CHANGES_DAYS"])
        is_old = cursor.seconds < (call.now - kept).timestamp()
        if is_old or not queries.is_known(call.connection, cursor.place):
            raise Problem(problems.GONE)
        place = cursor.place
    types = call.query["types"].split(",") if call.query["types"] else ()
    feed = queries.feed(call.connection, place, call.query["limit"], types, call.query["module_id"])
    return Answer(ChangesDocument.of(feed, call.now))

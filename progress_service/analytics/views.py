"""The endpoints about modules and all their learners."""

from datetime import timedelta

from progress_service.analytics import matrix, overview, queries, report, roster, tables
from progress_service.analytics.documents import (
    ListedLearnerDocument,
    MatrixDocument,
    OverviewDocument,
    RosterDocument,
    StatisticsDocument,
    TimelineDocument,
)
from progress_service.analytics.queries import TitledModule
from progress_service.analytics.roster import Filters, Order, Stage, Stop
from progress_service.analytics.schemas import (
    OverviewQuery,
    RosterPageQuery,
    RosterQuery,
    StatisticsQuery,
    TimelineQuery,
)
from progress_service.calculations import Denominators, Enrollment
from progress_service.web.auth import READ_STATISTICS
from progress_service.web.endpoint import (
    Answer,
    Blueprint,
    Call,
    Page,
    Stream,
    answers,
    from_replica,
    requires_token,
    single_statement,
    streams,
    takes_query,
)
from progress_service.web.problems import NO_MODULE, NOT_FOUND, Fault, Problem, or_not_found

CONTENTS = {"stalledOn": "stalled_on", "contentId": "content_id"}
"""The parameters of the roster that name a content."""
analytics = Blueprint("analytics", __name__, url_prefix="/api/progress/stats", template_folder="templates")


@analytics.get("/<module_id>")
@requires_token(READ_STATISTICS)
@takes_query(StatisticsQuery())
@answers(StatisticsDocument, 200)
@from_replica
@single_statement
def read_statistics(call: Call, module_id: str) -> Answer:
    """Read a module's statistics."""
    since = call.now - timedelta(days=call.query["stalled_days"])
    found = or_not_found(queries.statistics(call.connection, module_id, since), NO_MODULE)
    return Answer(StatisticsDocument.of(found))


@analytics.get("/<module_id>/learners")
@requires_token(READ_STATISTICS)
@takes_query(RosterPageQuery())
@answers(RosterDocument, 200, or_text=tables.CSV)
@from_replica
def read_roster(call: Call, module_id: str) -> Answer | Stream:
    """List a module's learners, page by page, or all of them as text/csv, which has no `limit` and no `cursor`."""
    if call.wants_text:
        return _table(call, module_id)
    module = _module(call, module_id).module
    learners, next_cursor = _page(call, module_id, module)
    return Answer(RosterDocument([ListedLearnerDocument.of(learner, module) for learner in learners], next_cursor))


@analytics.get("/<module_id>/learners.csv")
@requires_token(READ_STATISTICS)
@takes_query(RosterQuery())
@streams(tables.CSV)
def read_roster_table(call: Call, module_id: str) -> Stream:
    """Save a module's learners as a table, all that the filters leave.

    Its header has the names of the fields that `readRoster` lists. Times are in UTC, in whole seconds.
    """
    return _table(call, module_id)


@analytics.get("/<module_id>/timeline")
@requires_token(READ_STATISTICS)
@takes_query(TimelineQuery())
@answers(TimelineDocument, 200)
@from_replica
def read_timeline(call: Call, module_id: str) -> Answer:
    """Read the activity in a module, day by day."""
    _module(call, module_id)
    first, last = call.query["first"], call.query["last"]
    return Answer(TimelineDocument.of(first, last, queries.days(call.connection, module_id, first, last)))


@analytics.get("/<module_id>/matrix")
@requires_token(READ_STATISTICS)
@takes_query(RosterPageQuery())
@answers(MatrixDocument, 200)
@from_replica
def read_matrix(call: Call, module_id: str) -> Answer:
    """List a module's learners with what each has done in each content, page by page."""
    module = _module(call, module_id).module
    contents = matrix.contents(call.connection, module_id)
    learners, next_cursor = _page(call, module_id, module)
    rows = matrix.rows(call.connection, contents, learners)
    return Answer(MatrixDocument.of(contents, rows, module, next_cursor))


@analytics.get("/<module_id>/matrix.csv")
@requires_token(READ_STATISTICS)
@takes_query(RosterQuery())
@streams(tables.CSV)
def read_matrix_table(call: Call, module_id: str) -> Stream:
    """Save a module's learners with what each has done in each content as a table, all that the filters leave.

    A row has the fields of a learner that `readMatrix` lists, and then for each content the fields of its record, which
    are empty without a record. These are named after the content and the field, such as `sql-joins status`.
    """
    module = _module(call, module_id).module
    contents = matrix.contents(call.connection, module_id)
    filters, order = _filters(call, module_id, module), Order.named(call.query["sort"])
    pages = matrix.pages(call.connection, module_id, contents, filters, order)
    return Stream(tables.matrix(contents, pages, module), tables.CONTENT_TYPE, f"{module_id}-matrix.csv")


@analytics.get("")
@requires_token(READ_STATISTICS)
@takes_query(OverviewQuery())
@answers(OverviewDocument, 200)
@from_replica
@single_statement
def read_overview(call: Call) -> Answer:
    """List the modules with their main figures, page by page; instructors get the modules that they teach."""
    limit = call.query["limit"]
    found = overview.page(call.connection, call.instructor_id, call.query["cursor"], limit + 1)
    return Answer(OverviewDocument.of(found, limit))


@analytics.get("/<module_id>/report")
@requires_token(READ_STATISTICS)
@takes_query(StatisticsQuery())
@answers({"type": "string"}, 200, content_type="text/html")
@from_replica
def read_report(call: Call, module_id: str) -> Page:
    """Show a module's statistics to people, as one HTML page with pictures.

    The page needs no script, fetches nothing, and prints on A4. It shows the figures of `readStatistics`, the last 60
    days of `readTimeline`, and first of the learners whom `readRoster` lists by `inactiveDays`, if they are counted.
    """
    found = or_not_found(report.find(call.connection, module_id, call.now, call.query["stalled_days"]), NO_MODULE)
    return Page(report.written(found), report.POLICY)


def _page(call: Call, module_id: str, module: Denominators) -> tuple[list[Enrollment], str | None]:
    """Return a page of a module's learners, and the cursor of the next page."""
    order, limit = Order.named(call.query["sort"]), call.query["limit"]
    after = roster.decode(call.query["cursor"], order) if "cursor" in call.query else None
    found = roster.page(call.connection, module_id, _filters(call, module_id, module), order, after, limit + 1)
    return found[:limit], roster.encode(order, order.position(found[limit - 1])) if len(found) > limit else None


def _table(call: Call, module_id: str) -> Stream:
    module = _module(call, module_id).module
    order = Order.named(call.query["sort"])
    pages = roster.pages(call.connection, module_id, _filters(call, module_id, module), order)
    return Stream(tables.learners(pages, module), tables.CONTENT_TYPE, f"{module_id}-learners.csv")


def _module(call: Call, module_id: str) -> TitledModule:
    return or_not_found(queries.module(call.connection, module_id), NO_MODULE)


def _filters(call: Call, module_id: str, module: Denominators) -> Filters:
    """Return the filters of a roster; the bound of the shown percentage becomes a bound of the stored sum.

    Raises 404 if a filter names a content that is not the module's.
    """
    query, weight = call.query, module.total_weight or 1
    named = {f"/{name}": query[attribute] for name, attribute in CONTENTS.items() if query[attribute] is not None}
    known = queries.known_contents(call.connection, module_id, named.values()) if named else set()
    if unknown := [where for where, content_id in named.items() if content_id not in known]:
        detail = "The module has no such content."
        raise Problem(NOT_FOUND, detail, faults=[Fault(where, detail) for where in unknown])
    days, hundredths = query["inactive_days"], query["max_progress"]
    stalled_on, content_id = query["stalled_on"], query["content_id"]
    return Filters(
        query["status"],
        None if days is None else call.now - timedelta(days=days),
        None if hundredths is None else ((hundredths + 1) * weight - 1) // 100,
        is_weightless=not module.total_weight,
        stop=None if stalled_on is None else Stop(stalled_on, call.now - timedelta(days=query["stalled_days"])),
        stage=None if content_id is None else Stage(content_id, query["content_status"]),
        user_ids=query["user_ids"],
        completed_since=query["completed_since"],
    )

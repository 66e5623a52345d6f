"""The endpoints about a learner's progress."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from flask import current_app

from progress_service import figures
from progress_service.calculations import Update
from progress_service.progress import queries
from progress_service.progress.documents import (
    BatchRecordedDocument,
    DashboardDocument,
    ExportDocument,
    HistoryDocument,
    ModuleProgressDocument,
    RecordedDocument,
)
from progress_service.progress.schemas import (
    NEWEST,
    CorrectionSchema,
    DashboardQuery,
    EffortSchema,
    HistoryQuery,
    MergeSchema,
    RecordQuery,
    batch_schema,
    update_schema,
)
from progress_service.store import corrections, journal, recorder
from progress_service.store.database import when_committed
from progress_service.store.journal import COMPLETIONS
from progress_service.store.learning import EnrollmentKey, Recorded
from progress_service.store.recorder import NoRecord, UnknownContent, refuse
from progress_service.web import idempotency, problems
from progress_service.web.auth import ANY, CORRECT, ERASE, READ_DASHBOARD, READ_LEARNER_MODULE, SEND_UPDATES
from progress_service.web.endpoint import (
    NOTHING,
    Answer,
    Blueprint,
    Call,
    answers,
    from_replica,
    leads_to,
    refuses,
    requires_token,
    single_statement,
    takes,
    takes_query,
    together,
)
from progress_service.web.problems import NO_MODULE, Fault, Problem, or_not_found, refused_at

progress = Blueprint("progress", __name__, url_prefix="/api/progress")
ENROLLED = {"userId": "$response.body#/enrollment/userId", "moduleId": "$response.body#/enrollment/moduleId"}
AFTER_UPDATE = {
    "completeRecord": {"parameters": {"recordId": "$response.body#/progress/id"}},
    "readDashboard": {"parameters": {"userId": "$response.body#/progress/userId"}},
    "readLearnerModule": {"parameters": ENROLLED},
    "readEnrollment": {"parameters": ENROLLED},
    "readStatistics": {"parameters": {"moduleId": ENROLLED["moduleId"]}},
}


def _updates(call: Call) -> list[tuple[str, Mapping[str, Any]]]:
    """List the updates of a body, each with the pointer to it."""
    if "updates" in call.body:
        return [(f"/updates/{index}", update) for index, update in enumerate(call.body["updates"])]
    return [("", call.body)]


def _authorize_updates(call: Call) -> None:
    """Refuse updates of other learners, and times of updates, from callers who may report only for themselves."""
    faults = []
    for pointer, update in _updates(call):
        if "occurred_at" in update and not call.caller.may_date:
            faults.append(Fault(f"{pointer}/occurredAt", "Only admins and services may send it."))
        if not call.reaches(update.get("user_id", call.caller.id)):
            faults.append(Fault(f"{pointer}/userId", "Only admins and services may report for others."))
    if faults:
        raise Problem(problems.FORBIDDEN, "You may not report this.", faults=faults)


def _find_unknown_contents(call: Call) -> list[Fault]:
    """Name the contents that are not in the catalog, in the updates that the caller may send."""
    named = [
        (pointer, update["content_id"])
        for pointer, update in _updates(call)
        if "content_id" in update and call.reaches(update.get("user_id", call.caller.id))
    ]
    known = queries.known_contents(call.connection, {content_id for _, content_id in named}) if named else set()
    detail = problems.REFUSALS[UnknownContent].detail
    return [Fault(f"{pointer}/contentId", detail) for pointer, content_id in named if content_id not in known]


@progress.post("")
@requires_token(SEND_UPDATES)
@takes(update_schema, authorize=_authorize_updates, more_faults=_find_unknown_contents)
@answers(RecordedDocument, 201, 200)
@refuses(problems.NOT_ENROLLED, problems.UNKNOWN_CONTENT)
@leads_to(AFTER_UPDATE)
@together
def send_update(calls: Sequence[Call]) -> list[Answer]:
    """Record an update: 201 if it starts the record, 200 otherwise.

    It also enrolls a learner who is not enrolled, unless the service is set up otherwise.
    """
    return _answers(_record(calls, [_update(call, call.body) for call in calls]), if_started=201)


@progress.post("/batch")
@requires_token(SEND_UPDATES)
@takes(batch_schema, authorize=_authorize_updates, more_faults=_find_unknown_contents)
@answers(BatchRecordedDocument, 200)
@refuses(problems.NOT_ENROLLED, problems.UNKNOWN_CONTENT)
def send_batch(call: Call) -> Answer:
    """Record up to 1000 updates in order, all or nothing."""
    updates = [_update(call, body) for body in call.body["updates"]]
    with refused_at("/updates/{}"):
        recorded = _record([call], updates)
    when_committed(call.connection, partial(figures.own().batches.observe, len(updates)))
    told = journal.of_updates(recorded.steps, recorded.before, recorded.modules, each_alone=False)
    completions = [change for change in told if change.type in COMPLETIONS]
    named = {completion.user_id for completion in completions} or {call.caller.id}
    document = BatchRecordedDocument.of(len(updates), recorded.started, completions)
    return Answer(document, learner=named.pop() if len(named) == 1 else None)


@progress.put("/<record_id>/complete")
@requires_token(SEND_UPDATES)
@takes_query(RecordQuery())
@takes(EffortSchema(), required=False, authorize=_authorize_updates)
@answers(RecordedDocument, 200)
@refuses(problems.NOT_ENROLLED, problems.COMPLETION_CRITERIA_NOT_MET)
@leads_to(AFTER_UPDATE)
@together
def complete_record(calls: Sequence[Call]) -> list[Answer]:
    """Complete a record whatever its percentage, unless its best score does not reach the passing score."""
    record_ids = [_uuid(call.path["record_id"]) for call in calls]
    learners = (call.query.get("user_id", None if ANY in call.reach else call.caller.id) for call in calls)
    keys = queries.record_keys(calls[0].connection, list(zip(record_ids, learners, strict=True)))
    refuse(NoRecord, [key is not None and call.reaches(key.user_id) for call, key in zip(calls, keys, strict=True)])
    bodies = ({**key._asdict(), **call.body, "completes": True} for call, key in zip(calls, keys, strict=True) if key)
    recorded = _record(calls, [_update(call, body) for call, body in zip(calls, bodies, strict=True)])
    # While this waited for the learner's lock, a record may have been removed.
    same = zip(recorded.steps, record_ids, strict=True)
    refuse(NoRecord, [step.record.id == record_id for step, record_id in same])
    return _answers(recorded, if_started=200)


@progress.get("/<user_id>")
@requires_token(READ_DASHBOARD)
@takes_query(DashboardQuery())
@answers(DashboardDocument, 200)
@from_replica
@single_statement
def read_dashboard(call: Call, user_id: str) -> Answer:
    """Read a learner's progress in all their modules, and where they left off."""
    modules, following = queries.dashboard(call.connection, user_id)
    return Answer(DashboardDocument.of(user_id, modules, following, call.query.get("status")))


@progress.get("/<user_id>/export")
@requires_token(READ_DASHBOARD)
@answers(ExportDocument, 200)
def export_learner(call: Call, user_id: str) -> Answer:
    """Read everything that is stored about a learner."""
    modules, _ = queries.dashboard(call.connection, user_id)
    line_dates = queries.line_dates(call.connection, user_id)
    records = queries.records(call.connection, user_id)
    days = queries.activity_days(call.connection, user_id)
    sessions = queries.sessions(call.connection, user_id)
    changes = queries.changes(call.connection, user_id)
    taught = queries.taught_modules(call.connection, user_id)
    answers = queries.stored_answers(call.connection, user_id)
    return Answer(ExportDocument.of(user_id, modules, line_dates, records, days, sessions, changes, taught, answers))


@progress.get("/<user_id>/<module_id>")
@requires_token(READ_LEARNER_MODULE)
@answers(ModuleProgressDocument, 200)
@from_replica
@single_statement
def read_learner_module(call: Call, user_id: str, module_id: str) -> Answer:
    """Read a learner's progress in one module, content by content."""
    found = or_not_found(queries.learner_module(call.connection, user_id, module_id), NO_MODULE)
    return Answer(ModuleProgressDocument.of(module_id, found))


@progress.get("/<user_id>/<module_id>/history")
@requires_token(READ_LEARNER_MODULE)
@takes_query(HistoryQuery())
@answers(HistoryDocument, 200)
@single_statement
def read_history(call: Call, user_id: str, module_id: str) -> Answer:
    """Read what happened to a learner in a module, page by page, newest first.

    Updates are not in it, but what they have completed is, and what people have changed.
    """
    before, limit = int(call.query.get("cursor", NEWEST)), call.query["limit"]
    history = or_not_found(queries.history(call.connection, user_id, module_id, before, limit + 1), NO_MODULE)
    return Answer(HistoryDocument.of(history, limit))


@progress.delete("/<user_id>/<module_id>")
@requires_token(ERASE)
@answers(None, 204)
def reset_module(call: Call, user_id: str, module_id: str) -> Answer:
    """Reset a learner's progress in one module."""
    corrections.reset(call.connection, EnrollmentKey(user_id, module_id), by=call.actor, now=call.now)
    return NOTHING


@progress.delete("/<user_id>")
@requires_token(ERASE)
@answers(None, 204)
def erase_learner(call: Call, user_id: str) -> Answer:
    """Erase every trace of a learner, but for one change in the journal that tells of it."""
    corrections.erase(call.connection, user_id, by=call.actor, now=call.now)
    idempotency.forget(call.connection, user_id)  # last, so that no request keeps its answer without its effect
    return NOTHING


@progress.patch("/<record_id>")
@requires_token(CORRECT)
@takes_query(RecordQuery())
@takes(CorrectionSchema())
@answers(RecordedDocument, 200)
def correct_record(call: Call, record_id: str) -> Answer:
    """Replace the given values of a record, downwards too.

    If the percentage or the score is given, the completion follows from the content's rule: a record may stop being
    completed. A completed enrollment stays completed.
    """
    found = or_not_found(_uuid(record_id))
    with refused_at():
        learner = call.query.get("user_id")
        corrected = corrections.correct(call.connection, found, call.body, of=learner, by=call.actor, now=call.now)
    return Answer(RecordedDocument.of(*corrected))


@progress.delete("/<user_id>/<module_id>/<content_id>")
@requires_token(CORRECT)
@answers(None, 204)
def remove_record(call: Call, user_id: str, module_id: str, content_id: str) -> Answer:
    """Remove a record that was a mistake, with its time and its excuse.

    Days of activity stay, and a completed enrollment stays completed.
    """
    with refused_at():
        corrections.remove(call.connection, EnrollmentKey(user_id, module_id), content_id, by=call.actor, now=call.now)
    return NOTHING


@progress.put("/<user_id>/<module_id>/<content_id>/excuse")
@requires_token(CORRECT)
@answers(RecordedDocument, 200)
def excuse_learner(call: Call, user_id: str, module_id: str, content_id: str) -> Answer:
    """Excuse a learner from a content: it counts as done.

    A learner who is not enrolled is enrolled.
    """
    with refused_at():
        excused = corrections.excuse(
            call.connection, EnrollmentKey(user_id, module_id), content_id, by=call.actor, now=call.now
        )
    return Answer(RecordedDocument.of(*excused), learner=user_id)


@progress.delete("/<user_id>/<module_id>/<content_id>/excuse")
@requires_token(CORRECT)
@answers(None, 204)
def withdraw_excuse(call: Call, user_id: str, module_id: str, content_id: str) -> Answer:
    """Withdraw an excuse: the record is again what its updates made it; without any, there is no record."""
    with refused_at():
        corrections.withdraw_excuse(
            call.connection, EnrollmentKey(user_id, module_id), content_id, by=call.actor, now=call.now
        )
    return NOTHING


@progress.post("/<user_id>/merge")
@requires_token(CORRECT)
@takes(MergeSchema())
@answers(None, 204)
def merge_learner(call: Call, user_id: str) -> Answer:
    """Merge a learner into another: the two ids are of one person.

    Everything of the first becomes the other's, as if all updates had been the other's. Nothing of the first remains.
    """
    into = call.body["into"]
    if into == user_id:
        raise Problem(problems.VALIDATION_FAILED, faults=[Fault("/into", "Must be another learner.")])
    session_days = current_app.config["SESSION_DAYS"]
    corrections.merge(call.connection, user_id, into, session_days=session_days, by=call.actor, now=call.now)
    idempotency.forget(call.connection, user_id)  # last, as in an erasure
    return NOTHING


def _update(call: Call, body: Mapping[str, Any]) -> Update:
    """Return the update that a body reports; the caller and the present time are its defaults."""
    return Update(**{"user_id": call.caller.id, "occurred_at": call.now, "by": call.actor, **body})


def _record(calls: Sequence[Call], updates: Sequence[Update]) -> Recorded:
    return recorder.record(
        calls[0].connection,
        updates,
        auto_enroll=current_app.config["AUTO_ENROLL"],
        session_days=current_app.config["SESSION_DAYS"],
        now=max(call.now for call in calls),
        each_alone=len(calls) > 1,
    )


def _answers(recorded: Recorded, *, if_started: int) -> list[Answer]:
    """Show the record of each update, and its enrollment, as the update has left them; 200 if it starts no record."""
    return [
        Answer(
            RecordedDocument.of(step.record, step.enrollment, recorded.modules[step.enrollment.module_id]),
            if_started if step.starts else 200,
            step.record.user_id,
        )
        for step in recorded.steps
    ]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None

"""The endpoints by which the platform publishes its catalog and its enrollments."""

from collections.abc import Mapping
from typing import Any

from progress_service.catalog import queries
from progress_service.catalog.documents import EnrolledDocument, ModuleListDocument, PublishedModuleDocument
from progress_service.catalog.schemas import ChangedEnrollmentSchema, ModuleSchema
from progress_service.store import corrections, publishing, recorder
from progress_service.store.learning import EnrollmentChange, EnrollmentKey
from progress_service.store.publishing import PublishedModule
from progress_service.web import problems
from progress_service.web.auth import READ_CATALOG, READ_LEARNER_MODULE, WRITE_CATALOG
from progress_service.web.endpoint import (
    NOTHING,
    Answer,
    Blueprint,
    Call,
    answers,
    catalog_timeout,
    leads_to,
    refuses,
    requires_token,
    takes,
)
from progress_service.web.problems import NO_MODULE, Fault, Problem, or_not_found, refused_at
from progress_service.web.serialization import encode
from progress_service.web.validation import parse_json

catalog = Blueprint("catalog", __name__, url_prefix="/api")
MODULE_ID = {"moduleId": "$response.body#/id"}
AFTER_PUBLISHING = {
    "readModule": {"parameters": MODULE_ID},
    "readStatistics": {"parameters": MODULE_ID},
    "readRoster": {"parameters": MODULE_ID},
    "sendUpdate": {"requestBody": {"contentId": "$response.body#/contents/0/id"}},
}
ENROLLED = {"userId": "$response.body#/userId", "moduleId": "$response.body#/moduleId"}
AFTER_ENROLLING = {
    "readEnrollment": {"parameters": ENROLLED},
    "readLearnerModule": {"parameters": ENROLLED},
    "readRoster": {"parameters": {"moduleId": ENROLLED["moduleId"]}},
}


@catalog.get("/catalog/modules")
@requires_token(READ_CATALOG)
@answers(ModuleListDocument, 200)
def list_modules(call: Call) -> Answer:
    """List the modules; instructors get the modules that they teach."""
    return Answer(ModuleListDocument.of(queries.modules(call.connection, call.instructor_id)))


@catalog.get("/catalog/modules/<module_id>")
@requires_token(READ_CATALOG)
@answers(PublishedModuleDocument, 200)
def read_module(call: Call, module_id: str) -> Answer:
    """Read a module as it was last published."""
    module = or_not_found(queries.module(call.connection, module_id), NO_MODULE)
    return Answer(PublishedModuleDocument.of(module))


@catalog.put("/catalog/modules/<module_id>")
@requires_token(WRITE_CATALOG)
@takes(ModuleSchema())
@answers(PublishedModuleDocument, 201, 200)
@refuses(problems.CONTENT_BELONGS_ELSEWHERE)
@leads_to(AFTER_PUBLISHING)
@catalog_timeout
def publish_module(call: Call, module_id: str) -> Answer:
    """Publish a module with all its contents; contents that are left out are retired, and every total changes at once.

    201 if the module is new, 200 otherwise. A retired content counts again when it is published again. In another
    module it moves there with all its records. The document of a GET may be sent back.
    """
    with refused_at("/contents/{}"):
        module = PublishedModule(module_id, **call.body)
        created = publishing.publish(call.connection, module, now=call.now, by=call.actor)
    return Answer(PublishedModuleDocument.of(module), 201 if created else 200)


@catalog.get("/enrollments/<user_id>/<module_id>")
@requires_token(READ_LEARNER_MODULE)
@answers(EnrolledDocument, 200)
def read_enrollment(call: Call, user_id: str, module_id: str) -> Answer:
    """Read an enrollment."""
    found = or_not_found(queries.enrollment(call.connection, user_id, module_id), "There is no such enrollment.")
    return Answer(EnrolledDocument.of(*found))


@catalog.put("/enrollments/<user_id>/<module_id>")
@requires_token(WRITE_CATALOG)
@takes(ChangedEnrollmentSchema())
@answers(EnrolledDocument, 201, 200)
@leads_to(AFTER_ENROLLING)
def change_enrollment(call: Call, user_id: str, module_id: str) -> Answer:
    """Enroll a learner, or change the given fields of an enrollment; a completed enrollment keeps its status.

    201 if the enrollment is new, 200 otherwise. The document of a GET may be sent back. The status `completed` gives
    credit for what was completed elsewhere, whatever the records say.
    """
    change = EnrollmentChange(user_id, module_id, **call.body["change"])
    with refused_at():
        enrolled = recorder.enroll(call.connection, [change], now=call.now, by=call.actor)
    (key, enrollment), module = *enrolled.after.enrollments.items(), enrolled.modules[module_id]
    before = enrolled.before.enrollments.get(key, enrollment)
    faults = _read_only_faults(call.body["read_only"], EnrolledDocument.of(before, module))
    if change.completed_at not in (None, enrollment.completed_at):
        faults.append(Fault("/completedAt", "Is only for an enrollment that is completed."))
    if faults:
        raise Problem(problems.VALIDATION_FAILED, faults=faults)
    return Answer(EnrolledDocument.of(enrollment, module), 201 if enrolled.enrolled else 200, user_id)


@catalog.delete("/enrollments/<user_id>/<module_id>")
@requires_token(WRITE_CATALOG)
@answers(None, 204)
def withdraw_enrollment(call: Call, user_id: str, module_id: str) -> Answer:
    """Withdraw an enrollment, with all that is recorded under it, as if it had never been."""
    corrections.withdraw(call.connection, EnrollmentKey(user_id, module_id), by=call.actor, now=call.now)
    return NOTHING


def _read_only_faults(given: Mapping[str, Any], document: EnrolledDocument) -> list[Fault]:
    """Name the fields that no request can set, unless they have the values of the document."""
    shown = parse_json(encode(document))
    wrong = [name for name, value in given.items() if isinstance(value, bool) or value != shown[name]]
    return [Fault(f"/{name}", "Cannot be set, and has another value.") for name in wrong]

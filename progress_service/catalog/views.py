"""The endpoints by which the platform keeps the catalog and the enrollments in step."""

from flask import Blueprint

from progress_service import recorder
from progress_service.auth import READ_CATALOG, TAUGHT, WRITE_CATALOG
from progress_service.catalog import queries
from progress_service.catalog.schemas import (
    EnrollmentChangeSchema,
    ModuleListSchema,
    ModuleSchema,
    PublishedModuleSchema,
)
from progress_service.documents import EnrollmentSchema, enrollment_document
from progress_service.endpoint import Answer, Call, endpoint
from progress_service.errors import Fault, Problem, not_found
from progress_service.recorder import ContentElsewhere, EnrollmentChange, PublishedModule, UnknownModule

catalog = Blueprint("catalog", __name__, url_prefix="/api")
MODULE = PublishedModuleSchema()
ENROLLMENT = EnrollmentSchema()


@catalog.get("/catalog/modules")
@endpoint(READ_CATALOG, answers={200: ModuleListSchema()})
def list_modules(call: Call) -> Answer:
    """List the modules; an instructor's are those that they teach."""
    instructor_id = call.caller.id if call.reach is TAUGHT else None
    return Answer({"modules": queries.modules(call.connection, instructor_id)})


@catalog.get("/catalog/modules/<module_id>")
@endpoint(READ_CATALOG, answers={200: MODULE})
def read_module(call: Call, module_id: str) -> Answer:
    """Read a module as it was last published."""
    document = queries.module_document(call.connection, module_id)
    if document is None:
        raise not_found("There is no such module.")
    return Answer(document)


@catalog.put("/catalog/modules/<module_id>")
@endpoint(
    WRITE_CATALOG,
    body=ModuleSchema(),
    answers={201: MODULE, 200: MODULE},
    problems=["content-belongs-elsewhere"],
    unhurried=True,
)
def publish_module(call: Call, module_id: str) -> Answer:
    """Publish a module whole: contents that are left out are retired, and every total follows at once.

    201 where the module is new, 200 otherwise. What is retired counts again when it returns.
    """
    created = publish(call, PublishedModule(module_id, **call.body))
    return Answer(queries.module_document(call.connection, module_id), 201 if created else 200)


@catalog.get("/enrollments/<user_id>/<module_id>")
@endpoint(READ_CATALOG, answers={200: ENROLLMENT})
def read_enrollment(call: Call, user_id: str, module_id: str) -> Answer:
    """Read an enrollment."""
    found = queries.enrollment(call.connection, user_id, module_id)
    if found is None:
        raise not_found("There is no such enrollment.")
    return Answer(enrollment_document(*found))


@catalog.put("/enrollments/<user_id>/<module_id>")
@endpoint(WRITE_CATALOG, body=EnrollmentChangeSchema(), answers={201: ENROLLMENT, 200: ENROLLMENT})
def change_enrollment(call: Call, user_id: str, module_id: str) -> Answer:
    """Enroll a learner, or change what is given of their enrollment; a completed one keeps its status.

    201 where the enrollment is new, 200 otherwise.
    """
    enrolled = enroll(call, EnrollmentChange(user_id, module_id, **call.body))
    (enrollment,) = enrolled.after.enrollments.values()
    document = enrollment_document(enrollment, enrolled.modules[module_id])
    return Answer(document, 201 if enrolled.enrolled else 200, user_id)


def publish(call: Call, module: PublishedModule) -> bool:
    try:
        return recorder.publish(call.connection, module, now=call.now)
    except ContentElsewhere as refused:
        faults = [Fault(f"/contents/{place}/id", "Belongs to another module.") for place in refused.places]
        detail = "A content belongs to one module for ever."
        raise Problem(409, detail, slug="content-belongs-elsewhere", faults=faults) from refused


def enroll(call: Call, change: EnrollmentChange) -> recorder.Recorded:
    try:
        return recorder.enroll(call.connection, [change], now=call.now)
    except UnknownModule as refused:
        raise not_found("There is no such module.") from refused

"""The endpoints about a module and all its learners."""

from flask import Blueprint

from progress_service.analytics import queries
from progress_service.analytics.documents import statistics_document
from progress_service.analytics.schemas import StatisticsSchema
from progress_service.auth import READ_STATISTICS
from progress_service.endpoint import Answer, Call, endpoint
from progress_service.errors import not_found

analytics = Blueprint("analytics", __name__, url_prefix="/api/progress/stats")


@analytics.get("/<module_id>")
@endpoint(READ_STATISTICS, answers={200: StatisticsSchema()})
def read_statistics(call: Call, module_id: str) -> Answer:
    """Read a module's statistics."""
    module = queries.module(call.connection, module_id)
    if module is None:
        raise not_found("There is no such module.")
    groups = queries.learner_groups(call.connection, module_id)
    contents = queries.content_counts(call.connection, module_id)
    return Answer(statistics_document(module, groups, contents))

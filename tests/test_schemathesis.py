"""The whole API against its own document, as each role: whatever is sent, the answer is one that the document tells."""

from collections import Counter
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import BaseSchema
from werkzeug.exceptions import HTTPException

from progress_service.analytics.schemas import PAIRS
from progress_service.web.headers import POSITION
from progress_service.web.openapi import document as openapi
from tests.callers import Caller
from tests.conftest import empty, examples, fill_demo

pytestmark = [pytest.mark.slow, pytest.mark.no_cover]

BOUNDED: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}
NAMES = {"student": "sam", "instructor": "ines", "admin": "ada", "service": "lms"}
LEARNERS, MODULES, CONTENTS = ["sam", "tom"], ["sql-basics"], ["sql-welcome", "sql-joins", "sql-quiz"]

SAID_IN_WORDS = {
    "Must be on a host that is allowed.",
    "The content is not in the catalog.",
    "Must not be more than maxScore.",
    "Must be null together with maxScore.",
    "Must be another learner.",
    "Is only for an enrollment that is completed.",
    "Must have at most 4 decimals.",
    "Must have at most 2 decimals.",
    "Is given more than once.",
    "Must be the module in the path.",
    "Must be in 1970 or later.",
    "Must not be more than 5 minutes ahead.",
    "Must be at most 366 days, the last not before the first.",
    "Cannot be set, and has another value.",
    "A table has no pages: it takes no limit and no cursor.",
    "Is not a cursor of this order.",
    *(f"Must be given together with {name}." for name in PAIRS),
}
"""Why a request may be refused for its shape although it is as JSON Schema can say."""

OTHERWISE = {
    "positive_data_acceptance": "looked at below, more closely",
    "allow_header_conformance": "a URL may be of two templates, and has the methods of both; other tests look at it",
    "ignored_auth": "sends everything thrice; another test calls every method of every route without a token",
    "use_after_free": "a learner who was erased has an empty dashboard, as one nobody has heard of",
}
"""Checks that are left out, and why."""

# Times that are far away are refused; those at the limits are in the coverage of every field.
schemathesis.openapi.format(
    "date-time",
    st.builds(
        lambda moment, minutes: moment.astimezone(timezone(timedelta(minutes=minutes))).isoformat(),
        st.datetimes(datetime(2026, 1, 1), datetime(2026, 2, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        st.integers(-720, 720),
    ),
)
schemathesis.openapi.format("date", st.integers(1, 31).map("2026-01-{:02}".format))


def described(session: "Session", *, known: bool = False) -> BaseSchema:
    """Load the document as strictly as it reads to a caller, with the id of a record of theirs.

    Answers are to have no other fields than those described. With `known`, ids are those of somebody or something.
    """
    document = deepcopy(session.document)
    components = document["components"]
    for name in components["schemas"].keys() - {"Problem"}:
        components["schemas"][name].setdefault("additionalProperties", False)
    update = components["schemas"]["Update"]
    posts = [document["paths"][path]["post"] for path in ("/api/progress", "/api/progress/batch")]
    bodies = [post["requestBody"]["content"]["application/json"]["examples"] for post in posts]
    values = [example["value"] for body in bodies for example in body.values()]
    updates = [one for value in values for one in value.get("updates", [value])]
    if session.role == "service":
        update["required"].append("userId")
        for one in updates:
            one.setdefault("userId", LEARNERS[0])
    elif session.role != "admin":
        del update["properties"]["occurredAt"]
        update["properties"]["userId"]["enum"] = [session.caller.sub]
        for one in updates:
            one.pop("occurredAt", None)
            one.pop("userId", None)
    parameters = components["parameters"]
    for name in ("recordId", "recordIdForUserId"):
        parameters[name]["example"] = session.record
    if known:
        update["properties"]["contentId"] = components["schemas"]["Content"]["properties"]["id"] = {"enum": CONTENTS}
        update["properties"]["userId"].setdefault("enum", LEARNERS)
        del components["schemas"]["Module"]["properties"]["id"]  # which is to be that of the path
        components["schemas"]["RequestedWebhook"]["properties"]["url"] = {
            "enum": ["https://hooks.example.org/progress"]
        }
        ids_of = {
            "userId": LEARNERS,
            "userIdOrMe": ["sam", "me"],
            "moduleId": MODULES,
            "contentId": CONTENTS,
            "webhookId": ["certificates"],
            "recordId": [session.record],
            "recordIdForUserId": [session.record],
        }
        for name, ids in ids_of.items():
            parameters[name]["schema"] = {"enum": ids}
        for parameter in document["paths"]["/api/progress/stats/{moduleId}/learners"]["get"]["parameters"]:
            if parameter.get("name") in ("contentId", "stalledOn"):
                parameter["schema"] = {"enum": CONTENTS}
        owner = LEARNERS[0] if session.role == "service" else session.caller.sub
        records = (item for path, item in document["paths"].items() if "{recordId}" in path or "patch" in item)
        for parameter in (one for item in records for operation in item.values() for one in operation["parameters"]):
            if parameter.get("name") == "userId":
                parameter["schema"] = {"enum": [owner]}
    checks = {name: {"enabled": False} for name in OTHERWISE}
    config = {
        "checks": checks,
        "generation": {"with-security-parameters": False, "mode": "positive" if known else "all"},
    }
    schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(config))
    schema.app = session.app
    return schema


class Session:
    """A caller of a role, who looks at every answer."""

    def __init__(self, app: Flask, role: str) -> None:
        self.app, self.role, self.document = app, role, openapi.describe(app)
        self.caller = Caller(app, role, NAMES[role])
        self.record = self.begin()
        self.urls = app.url_map.bind("localhost")
        self.seen: Counter[tuple[str, int]] = Counter()

    def begin(self) -> str:
        """Begin with the demo, and return the id of a record."""
        empty(self.app)
        fill_demo(self.app)
        update = {"contentId": CONTENTS[0], **({"userId": LEARNERS[0]} if self.role == "service" else {})}
        return str(self.caller.post("/api/progress", json=update).get_json()["progress"]["id"])

    def send(self, case: Case[Any]) -> None:
        """Send a request, unless its path is that of another operation."""
        if self.is_another(case):
            return
        self.prepare(case)
        response = case.call(headers=self.caller.headers)
        case.validate_response(response, headers=self.caller.headers)
        self.look_at(case, response)

    def send_many(self, operation: Any, mode: GenerationMode, count: int) -> None:
        """Send requests that are proper, or that are not."""

        @settings(max_examples=examples(count), **BOUNDED)
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Case[Any]) -> None:
            self.send(case)

        send()

    def is_another(self, case: Case[Any]) -> bool:
        try:
            rule, _ = self.urls.match(case.formatted_path, case.method, return_rule=True)
        except HTTPException:
            return False
        return bool(openapi.shared_template(rule) != case.operation.path)

    def prepare(self, case: Case[Any]) -> None:
        """Give a proper request a key of its own, since another's is refused, and ask for every second table.

        Likewise a position: headers that do not have their pattern are taken for proper.
        """
        if is_proper(case):
            own = {"Idempotency-Key": f"key-{self.seen.total()}", POSITION: "0/16B3748"}
            case.headers.update({name: value for name, value in own.items() if name in case.headers})
        if case.operation.path.endswith("/learners") and self.seen.total() % 2:
            case.headers["Accept"] = "text/csv"

    def look_at(self, case: Case[Any], response: Any) -> None:
        operation = self.document["paths"][case.operation.path][case.operation.method]
        self.seen[operation["operationId"], response.status_code] += 1
        if response.status_code < 400 or response.status_code == 405:
            return
        problem = response.json()
        slug = problem["type"].rpartition(":")[2]
        name = operation["responses"][str(response.status_code)]["$ref"].rpartition("/")[2]
        told = self.document["components"]["responses"][name]["content"]["application/problem+json"]["examples"]
        assert slug in told, case.as_curl_command()
        if is_proper(case) and slug in ("malformed-request", "validation-failed"):
            why = {error["detail"] for error in problem.get("errors", [])} or {problem["detail"]}
            assert why <= SAID_IN_WORDS, (case.as_curl_command(), problem)


def operations(schema: BaseSchema) -> list[Any]:
    """List the operations, those last that take away what others need."""
    found = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        found.append(result.ok())
    return sorted(found, key=lambda operation: operation.method == "delete" or operation.path.endswith("/merge"))


def is_proper(case: Case[Any]) -> bool:
    return bool(case.meta and case.meta.generation.mode.is_positive)


@pytest.mark.parametrize(
    ("usual_app", "role"),
    [("sqlite", "student"), ("postgresql", "instructor"), ("sqlite", "admin"), ("postgresql", "service")],
    indirect=["usual_app"],
)
def test_whatever_a_role_sends_is_answered_as_the_document_tells(role: str, app: Flask) -> None:
    session = Session(app, role)
    schema = described(session)
    for operation in operations(schema):
        modes, config = list(GenerationMode), schema.config.generation
        for case in schema.iter_coverage_cases(operation, generation_modes=modes, generation_config=config):
            session.send(case)
        if len(operation.definition.raw["parameters"]) > 1:  # any X-Request-ID is right
            session.send_many(operation, GenerationMode.NEGATIVE, 6)
    session.record = session.begin()
    for operation in operations(described(session, known=True)):
        session.send_many(operation, GenerationMode.POSITIVE, 10)

    answered = {operation_id for operation_id, status in session.seen if status < 300}
    declared = [one.definition.raw for one in operations(schema)]
    assert answered == {one["operationId"] for one in declared if f"{role} (" in one.get("description", f"{role} (")}


def test_what_an_answer_leads_to_is_answered_as_the_document_tells(app: Flask) -> None:
    session = Session(app, "service")
    followed: Counter[str] = Counter()
    operations = [one for item in session.document["paths"].values() for one in item.values()]
    answers = [(one["operationId"], answer) for one in operations for answer in one["responses"].values()]
    linked = {name for source, answer in answers for target in answer.get("links", {}) for name in (source, target)}
    schema = described(session, known=True).include(operation_id=sorted(linked))

    class Machine(schema.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            session.begin()

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            session.prepare(case)
            return {"headers": session.caller.headers}

        def validate_response(self, response: Any, case: Case[Any], **kwargs: Any) -> None:
            super().validate_response(response, case, **kwargs)
            session.look_at(case, response)
            if response.status_code < 300 and self.recorder.find_parent(case_id=case.id):
                followed[case.operation.definition.raw["operationId"]] += 1

    Machine.run(settings=settings(max_examples=examples(30), stateful_step_count=10, **BOUNDED))

    assert followed.keys() >= {"completeRecord", "readLearnerModule", "readModule", "readStatistics"}, followed

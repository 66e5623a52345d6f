"""The OpenAPI document: true, complete, and the one that is kept in the repository."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from marshmallow import Schema, ValidationError
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from werkzeug import Response
from werkzeug.exceptions import InternalServerError

from progress_service.catalog.schemas import ChangedEnrollmentSchema, ModuleSchema
from progress_service.changes.schemas import RequestedWebhookSchema
from progress_service.progress.schemas import OWN_BATCH, OWN_UPDATE, CorrectionSchema, MergeSchema
from progress_service.web import problems
from progress_service.web.openapi import document as openapi
from tests.callers import Caller
from tests.conftest import Callers, application, fill_demo, wait_until_settled

KEPT = Path(__file__).parent.parent / "docs" / "openapi.json"
EXAMPLES = json.loads(openapi.EXAMPLES.read_bytes())
RECORD = EXAMPLES["parameters"]["recordId"]
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SECRET = re.compile(r"whsec_[\w+/]{43}=")
CHANGE = re.compile(r'"(id|nextCursor|cursor)": "[\d.]+"')
NOW = re.compile(r'"(\w+At|time)": "[^"]*(\.\d+Z|18:00:00Z)"')
"""Times that the service has set, and how the examples write them."""
DATE = re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)")
DAY = date(2026, 1, 5)
"""The day of the examples: the demo was filled on it."""
CALLERS = {"student": "sam", "instructor": "ines", "service": "lms"}
"""The callers of the demo by their roles."""
OWN_ROUTES = {"/docs/<path:filename>"}
"""What belongs to a page, and is no operation."""


@pytest.fixture
def document(anonymous: Caller) -> dict[str, Any]:
    return dict(anonymous.get("/openapi.json").get_json())


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_route_is_described_and_no_other(app: Flask, document: dict[str, Any]) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule not in OWN_ROUTES]
    routes = {(openapi.shared_template(rule), method) for rule in rules for method in rule.methods or ()}
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}

    assert described == {(path, method) for path, method in routes if method not in {"HEAD", "OPTIONS"}}


def test_every_operation_has_a_name_of_its_own_and_a_summary(document: dict[str, Any]) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", name) for name in names), names
    assert all(operation["summary"].endswith(".") for operation in operations)
    answers = [answer for operation in operations for answer in operation["responses"].values()]
    assert {target for answer in answers for target in answer.get("links", {})} <= set(names)


def test_the_document_is_the_same_whatever_the_settings(database_url: str, document: dict[str, Any]) -> None:
    with application(database_url, AUTO_ENROLL=False, MAX_CONTENT_LENGTH=99) as app:
        assert Caller(app).get("/openapi.json").get_json() == document


def test_the_document_in_the_repository_is_up_to_date(app: Flask) -> None:
    printed = app.test_cli_runner().invoke(args=["openapi"])

    assert printed.exit_code == 0
    assert printed.output == KEPT.read_text(), "docs/openapi.json is out of date: renew it with `make openapi`"


def moved(document: Any, days: int) -> Any:
    """Move all dates in a document."""
    later = timedelta(days)
    return json.loads(DATE.sub(lambda found: str(date.fromisoformat(found[0]) + later), json.dumps(document)))


def timeless(document: Any) -> Any:
    """Replace what differs each time: ids of records and changes, secrets, times of the service."""
    written = json.dumps(document, sort_keys=True)
    return json.loads(NOW.sub('"now": ""', CHANGE.sub('"id": ""', UUID.sub("id", SECRET.sub("secret", written)))))


def is_shown(example: Any, answer: Any) -> bool:
    """Tell whether an example is an answer, or would be if all of its lists went on."""
    if isinstance(example, dict) and isinstance(answer, dict):
        return example.keys() == answer.keys() and all(is_shown(example[name], answer[name]) for name in example)
    if isinstance(example, list) and isinstance(answer, list):
        ends_early = 0 < len(example) < len(answer)
        return (ends_early or len(example) == len(answer)) and all(map(is_shown, example, answer))
    return bool(example == answer)


def test_the_examples_are_true_of_the_demo_for_whoever_they_name(app: Flask) -> None:
    now = datetime.now(UTC)
    fill_demo(app, now)
    days = (now.date() - DAY).days
    wrong = {}
    for call in EXAMPLES["calls"]:
        wait_until_settled(app)
        caller, sent = Caller(app, call["as"], CALLERS[call["as"]]), moved(call, days)
        answer = caller.call(sent["method"], sent["path"], json=sent.get("request"))
        given = moved(answer.get_json(silent=True), -days)
        if answer.status_code != call["status"] or not is_shown(timeless(call.get("answer")), timeless(given)):
            wrong[call["name"]] = answer.status_code, given
    assert not wrong, f"correct these answers in {openapi.EXAMPLES.name}: {json.dumps(wrong, indent=2)}"


def test_the_first_example_of_an_operation_is_what_the_page_sends_first(document: dict[str, Any]) -> None:
    parameters = document["components"]["parameters"]
    first = {call["operation"]: call for call in reversed(EXAMPLES["calls"])}
    for path, item in document["paths"].items():
        for operation in item.values():
            if operation["security"]:
                described = [parameters.get(one.get("$ref", "").split("/")[-1], one) for one in operation["parameters"]]
                assert not any("default" in one.get("schema", {}) for one in described), "which it would send too"
                filled_in = {one["name"]: one["example"] for one in described if "example" in one}
                query = [
                    (one["name"], one["example"]) for one in described if one["in"] == "query" and "example" in one
                ]
                sent = path.format(**filled_in) + ("?" + urlencode(query, safe=",") if query else "")
                assert first[operation["operationId"]]["path"] == sent


def test_no_type_of_a_parameter_is_shown_as_never(document: dict[str, Any]) -> None:
    """Which the page does where any value of the excluded type would do."""
    shared = document["components"]["parameters"].values()
    own = [one for item in document["paths"].values() for operation in item.values() for one in operation["parameters"]]
    schemas = [one["schema"] for one in (*shared, *own) if "schema" in one]
    assert [schema for schema in schemas if "type" not in schema.get("not", schema)] == []


def test_every_request_and_every_answer_has_an_example(document: dict[str, Any]) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            parts = [operation["requestBody"]] if "requestBody" in operation else []
            parts += [answer for status, answer in operation["responses"].items() if status < "300"]
            contents = [
                part["content"]["application/json"] for part in parts if "application/json" in part.get("content", {})
            ]
            if operation["security"]:
                needed = f"{openapi.EXAMPLES.name} must have a call of {operation['operationId']}"
                assert all(content.get("examples") for content in contents), needed


def refused(app: Flask, database_url: str) -> list[Any]:
    """Provoke every problem once, on the catalog of the examples."""
    service, student = Caller(app, "service", "lms"), Caller(app, "student", "sam")
    fill_demo(app)
    quiz = {"userId": "tom", "contentId": "sql-quiz"}
    tom = service.post("/api/progress", json=quiz, headers={"Idempotency-Key": "1"}).get_json()["progress"]["id"]
    stolen = {"title": "SQL for experts", "contents": [{"id": "sql-quiz", "title": "Quiz", "type": "quiz"}]}
    wrong = {"userId": "sam", "contentId": "sql-quiz", "progressPercentage": "40", "score": 3, "done": True}
    answers: list[Response] = [
        service.get("/api/progress/sam?status=finished"),
        Caller(app).get("/api/progress/sam"),
        student.get("/api/progress/tom"),
        service.get("/api/progress/sam/sql-advanced"),
        service.get("/api/changes?after=0.1.0"),
        service.put(f"/api/progress/{tom}/complete"),
        service.put("/api/catalog/modules/sql-advanced", json=stolen),
        service.post("/api/progress", data=b" " * (1024 * 1024 + 1), content_type="application/json"),
        service.post("/api/progress", data={"contentId": "sql-quiz"}),
        service.post("/api/progress", json=wrong),
        service.post("/api/progress", json={"userId": "sam", "contentId": "sql-windows"}),
        service.post("/api/progress", json=quiz | {"position": "end"}, headers={"Idempotency-Key": "1"}),
    ]
    with application(database_url, AUTO_ENROLL=False) as closed:
        answers += [Caller(closed, "service", "lms").post("/api/progress", json=quiz | {"userId": "eva"})]
    with app.test_request_context():
        app.preprocess_request()
        answers += [problems.render(InternalServerError()), problems.render(problems.unavailable())]
    return answers


def test_the_examples_of_problems_are_true(app: Flask, database_url: str, document: dict[str, Any]) -> None:
    answers = [answer.get_json() for answer in refused(app, database_url)]
    given = {problem["type"].rpartition(":")[2]: problem | {"requestId": "…"} for problem in answers}

    examples = {slug: problem | {"requestId": "…"} for slug, problem in EXAMPLES["problems"].items()}
    assert given == examples
    assert {slug: problem["status"] for slug, problem in given.items()} == {
        kind.slug: kind.status for kind in problems.PROBLEM_TYPES if kind is not problems.METHOD_NOT_ALLOWED
    }
    described = [
        answer["content"]["application/problem+json"] for answer in document["components"]["responses"].values()
    ]
    assert {slug for content in described for slug in content["examples"]} == given.keys()


def test_what_an_answer_carries_beside_its_document_is_described(app: Flask, document: dict[str, Any]) -> None:
    responses = document["components"]["responses"]

    assert "WWW-Authenticate" in responses["Unauthorized"]["headers"]
    assert "Retry-After" in responses["Unavailable"]["headers"]
    for item in document["paths"].values():
        for method, operation in item.items():
            answers = {status: answer for status, answer in operation["responses"].items() if status < "300"}
            assert answers, operation["operationId"]
            for answer in answers.values():
                assert "X-Request-ID" in answer["headers"]
                assert ("Idempotency-Replayed" in answer["headers"]) == (method in ("post", "put"))
    assert all("X-Request-ID" in answer["headers"] for answer in responses.values())


UPDATE = {"contentId": "sets"}
MODULE: dict[str, Any] = {"title": "Algebra", "contents": []}
CONTENT = {"id": "sets", "title": "Sets", "type": "lab"}
BODIES: list[tuple[Schema, str, Any, list[Any], list[Any]]] = [
    # schema, its name in the document, the field, what is accepted, what is refused
    (
        OWN_UPDATE,
        "Update",
        "contentId",
        ["a", "_", "-A1._:@|+~'", "9" * 255],
        ["", ".a", "a b", "é", "9" * 256, 1, None],
    ),
    (OWN_UPDATE, "Update", "userId", ["sam", "me2"], ["me", "stats", "batch", "events", "", None]),
    (OWN_UPDATE, "Update", "progressPercentage", [0, 33.7, 100, 1e1], [-0.1, 100.1, "1", True, None]),
    (OWN_UPDATE, "Update", "timeSpentSeconds", [0, 14_400, 3.0], [-1, 14_401, 0.5, "1", False, None]),
    (OWN_UPDATE, "Update", "session", ["s", ".", "+1:~'@|", "9" * 64], ["", "a b", "é", "9" * 65, 1, None]),
    (OWN_UPDATE, "Update", None, [{"session": "s", "timeSpentSeconds": 86_400}], [{"timeSpentSeconds": 86_400}]),
    (OWN_UPDATE, "Update", None, [{"session": "s"}], [{"session": "s", "timeSpentSeconds": 86_401}]),
    (OWN_UPDATE, "Update", "position", ["", "é" * 255, "a\nb"], ["x" * 256, "\0", 1, None]),
    (OWN_UPDATE, "Update", "occurredAt", ["2026-01-31T12:00:00+01:00"], ["2026-01-31T12:00:00", "2026-01-31", 1, None]),
    (OWN_UPDATE, "Update", "colour", [], ["red"]),
    (OWN_UPDATE, "Update", None, [{"score": 0, "maxScore": 0.0001}, {"score": 17.3, "maxScore": 1_000_000}], []),
    (OWN_UPDATE, "Update", None, [], [{"score": 1}, {"maxScore": 1}, {"score": 0, "maxScore": 0}]),
    (OWN_UPDATE, "Update", None, [], [{"score": 0, "maxScore": 0.00001}, {"score": 1, "maxScore": 1_000_000.1}]),
    (OWN_BATCH, "Batch", "updates", [[UPDATE], [UPDATE] * 1000], [[], [UPDATE] * 1001, [{}], {}, None]),
    (CorrectionSchema(), "Correction", "progressPercentage", [0, 33.7, 100], [-1, 100.5, "1", None]),
    (CorrectionSchema(), "Correction", "timeSpentSeconds", [0, 1_000_000_000], [-1, 1_000_000_001, 0.5, None]),
    (CorrectionSchema(), "Correction", "position", ["", "x" * 255, None], ["x" * 256, "\0", 1]),
    (CorrectionSchema(), "Correction", None, [{"score": None, "maxScore": None}, {"score": 0, "maxScore": 0.0001}], []),
    (CorrectionSchema(), "Correction", None, [], [{}, {"score": None}, {"maxScore": 1}, {"occurredAt": "2026-01-31"}]),
    (MergeSchema(), "Merge", "into", ["lea", "-1"], ["", "me", "stats", ".", 1, None]),
    (
        RequestedWebhookSchema(),
        "RequestedWebhook",
        "url",
        ["https://a", "http://a.b:1/c?d=%20", "https://[::1]/"],
        ["a", "ftp://a", None],
    ),
    (
        RequestedWebhookSchema(),
        "RequestedWebhook",
        "url",
        ["https://a/" + "b" * 1990],
        ["https://a/" + "b" * 1991, "https://a/#b"],
    ),
    (
        RequestedWebhookSchema(),
        "RequestedWebhook",
        "url",
        [],
        ["https://a b/", "https://user@a/", "https:///a", 1],
    ),
    (
        RequestedWebhookSchema(),
        "RequestedWebhook",
        "types",
        [["learner.erased"], None],
        [[], ["a"], [1], "learner.erased"],
    ),
    (
        RequestedWebhookSchema(),
        "RequestedWebhook",
        "moduleIds",
        [["algebra"], None],
        [[], ["export"], ["algebra"] * 1001, "algebra"],
    ),
    (RequestedWebhookSchema(), "RequestedWebhook", "active", [True, False], [None, 1, "true"]),
    (ModuleSchema(), "Module", "title", ["", "x" * 200], ["x" * 201, None]),
    (ModuleSchema(), "Module", "instructorIds", [[], ["ines", "iris"]], [["ines", "ines"], ["me"], [1], None]),
    (ModuleSchema(), "Module", "contents", [[], [CONTENT]], [[{}], [1], {}, None]),
    (ModuleSchema(), "Content", "type", ["a", "0-_", "x" * 32], ["", "A", "-a", "x" * 33]),
    (ModuleSchema(), "Content", "weight", [0, 10_000], [-1, 10_001, 0.5]),
    (ModuleSchema(), "Content", "completionThreshold", [1, 100], [0, 101, 1.5]),
    (ModuleSchema(), "Content", "passingScore", [0, 33.33, 0.07, 100, None], [-1, 100.01, "1"]),
    (ChangedEnrollmentSchema(), "ChangedEnrollment", "status", ["active", "completed"], ["finished", "", None]),
    (ChangedEnrollmentSchema(), "ChangedEnrollment", "completedAt", ["2026-01-31T12:00:00Z", None], ["2026-01-31", 1]),
    (ChangedEnrollmentSchema(), "ChangedEnrollment", "counted", [True, False], [None, 0, "true"]),
]


@pytest.mark.parametrize(("schema", "name", "field", "accepted", "wrong"), BODIES)
def test_the_document_accepts_what_the_service_accepts_and_no_more(
    schema: Schema, name: str, field: str | None, accepted: list[Any], wrong: list[Any], app: Flask
) -> None:
    validator = OAS31Validator(
        {"$ref": f"#/components/schemas/{'Module' if name == 'Content' else name}", **openapi.describe(app)},
        format_checker=OAS31Validator.FORMAT_CHECKER,
    )
    required = {"Update": UPDATE, "Module": MODULE, "RequestedWebhook": {"url": "https://a"}}.get(name, {})
    for value, expected in [(value, True) for value in accepted] + [(value, False) for value in wrong]:
        body = {**required, **(value if field is None else {field: value})}
        if name == "Content":
            body = {**MODULE, "contents": [{**CONTENT, field: value}]}
        written = json.loads(json.dumps(body), parse_float=Decimal)
        try:
            schema.load(written)
            is_accepted = True
        except ValidationError:
            is_accepted = False
        assert (is_accepted, validator.is_valid(body)) == (expected, expected), value


def test_unknown_and_repeated_query_parameters_are_refused_everywhere(
    service: Callers, document: dict[str, Any]
) -> None:
    examples = EXAMPLES["parameters"]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if operation["security"]:
                where = re.sub(r"{(\w+)}", lambda match: examples[match[1]], path)
                names = [one["name"] for one in operation["parameters"] if one.get("in") == "query"]
                for query in ["unknown=1", *(f"{name}=1&{name}=1" for name in names)]:
                    answer = service().call(method.upper(), f"{where}?{query}", json={})
                    assert answer.status_code == 400, (method, where, query)


def test_the_page_for_people_needs_nothing_from_elsewhere(anonymous: Caller) -> None:
    page = anonymous.get("/docs")
    named = re.findall(r'(?:src|href)="(.*?)"', page.text)

    assert page.content_type == "text/html; charset=utf-8"
    assert len(named) == 3
    for name in named:
        assert anonymous.get(f"/{name}").status_code == 200, name
    assert "//" not in page.text
    assert "//" not in page.headers["Content-Security-Policy"]
    assert "unsafe-inline" not in page.headers["Content-Security-Policy"].partition("script-src")[2]


def test_what_is_not_of_the_page_is_not_found(anonymous: Caller) -> None:
    for name in ("nothing.js", "../flask_swagger_ui.py", "%2e%2e/flask_swagger_ui.py", ""):
        assert anonymous.get(f"/docs/{name}").status_code == 404, name

"""Publishing modules: what is kept, what is shown, and what is refused."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from progress_service.store.database import db
from tests.callers import Caller
from tests.conftest import Callers, Publish

PATH = "/api/catalog/modules/algebra"
EVERY_CHARACTER = "0Az._:@|+~'-"


def content(content_id: str = "sets", **fields: Any) -> dict[str, Any]:
    return {"id": content_id, "title": content_id.title(), "type": "video", **fields}


def module(*contents: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"title": "Algebra", "contents": list(contents), **fields}


def stored(app: Flask) -> dict[str, list[Any]]:
    """Return every row of every table."""
    with app.app_context(), db.engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in db.metadata.sorted_tables
        }


def faults(response: Any) -> set[str]:
    return {error["pointer"] for error in response.get_json()["errors"]}


def test_a_new_module_is_created_and_published_again_it_is_changed(service: Callers, publish: Publish) -> None:
    publish("biology", ["cells"])
    noise = service().get("/api/catalog/modules/biology").get_json()

    first = service().put(PATH, json=module(content("sets"), content("maps")))
    again = service().put(PATH, json=module(content("maps"), title="Algebra II"))

    assert (first.status_code, again.status_code) == (201, 200)
    assert [one["id"] for one in first.get_json()["contents"]] == ["sets", "maps"]
    assert [one["id"] for one in again.get_json()["contents"]] == ["maps"]
    assert again.get_json() == service().get(PATH).get_json()
    assert again.get_json()["title"] == "Algebra II"
    assert service().get("/api/catalog/modules/biology").get_json() == noise


def test_the_document_has_its_id_and_every_default(service: Callers) -> None:
    answered = service().put(PATH, json=module(content("sets"))).get_json()

    assert answered == service().get(PATH).get_json()
    assert answered == {
        "id": "algebra",
        "title": "Algebra",
        "instructorIds": [],
        "contents": [
            {
                "id": "sets",
                "title": "Sets",
                "type": "video",
                "section": None,
                "weight": 1,
                "completionThreshold": 100,
                "passingScore": None,
            }
        ],
    }


def test_everything_given_is_kept_in_the_order_given(service: Callers, publish: Publish) -> None:
    publish("algebra", ["maps", "rings", "sets", "gone"], instructor_ids=["adam", "zoe"])
    whole = module(
        content("sets", section="Ünit 1 🎓", weight=10_000, completionThreshold=1, passingScore=33.33),
        content("groups", type="lab", section="", weight=0, completionThreshold=99, passingScore=0),
        content("maps", type="quiz-2", section="Unit 2", weight=2, completionThreshold=100, passingScore=100),
        title="",
        instructorIds=["zoe", "ines", "adam"],
    )

    answered = service().put(PATH, json=whole).get_json()

    assert answered == {"id": "algebra", **whole}
    assert answered == service().get(PATH).get_json()


@pytest.mark.parametrize("score", [None, 0, 33.33, 66.66, 100])
def test_what_was_read_can_be_sent_back_and_changes_nothing(
    service: Callers, publish: Publish, app: Flask, score: float | None
) -> None:
    whole = module(content("sets", passingScore=score), content("maps", section="Unit", weight=0), content("gone"))
    service().put(PATH, json=whole | {"instructorIds": ["zoe", "ines"]})
    service().put(PATH, json=whole | {"instructorIds": ["zoe", "ines"], "contents": whole["contents"][:2]})
    service().post("/api/progress", json={"userId": "sam", "contentId": "sets", "progressPercentage": 40})
    publish("biology", ["cells"])
    before = stored(app)

    read = service().get(PATH)
    again = service().put(PATH, data=read.get_data(), content_type="application/json")

    assert (again.status_code, again.get_json()) == (200, read.get_json())
    assert stored(app) == before


def test_the_list_has_every_module_and_an_instructors_those_they_teach(
    service: Callers, admin: Callers, instructor: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", {"id": "maps", "weight": 0}, "gone"], title="Algebra", instructor_ids=["ines", "otto"])
    publish("algebra", ["sets", {"id": "maps", "weight": 0}], title="Algebra", instructor_ids=["ines", "otto"])
    publish("biology", ["cells", "genes"], title="Biology", instructor_ids=["otto"])
    publish("chemistry", [], title="Chemistry", instructor_ids=[])

    def listed(caller: Caller) -> list[Any]:
        answer = caller.get("/api/catalog/modules").get_json()
        assert set(answer) == {"modules"}
        return sorted(answer["modules"], key=lambda one: str(one["id"]))

    algebra = {"id": "algebra", "title": "Algebra", "totalContents": 1}
    biology = {"id": "biology", "title": "Biology", "totalContents": 2}
    chemistry = {"id": "chemistry", "title": "Chemistry", "totalContents": 0}
    assert listed(service()) == listed(admin()) == [algebra, biology, chemistry]
    assert listed(instructor("otto")) == [algebra, biology]
    assert listed(instructor("ines")) == [algebra]
    assert listed(instructor("ivan")) == []


def test_an_instructor_teaches_from_and_until_the_publication_that_says_so(
    instructor: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"], instructor_ids=["ines"])
    publish("biology", ["cells"], instructor_ids=["ines"])

    publish("algebra", ["sets"], instructor_ids=["otto"])

    assert [instructor(sub).get(PATH).status_code for sub in ("ines", "otto")] == [403, 200]
    assert instructor("ines").get("/api/catalog/modules/biology").status_code == 200


@pytest.mark.parametrize("module_id", ["algebra", "unheard-of"])
def test_a_content_that_is_current_in_another_module_is_refused_and_nothing_changes(
    module_id: str, service: Callers, publish: Publish, app: Flask
) -> None:
    publish("algebra", ["sets", "maps"])
    publish("biology", ["cells", "genes"])
    service().post("/api/progress", json={"userId": "sam", "contentId": "genes", "progressPercentage": 40})
    publish("botany", ["moss"])
    before = stored(app)

    stolen = module(content("genes"), content("groups"), content("moss"), title="Stolen", instructorIds=["eve"])
    response = service().put(f"/api/catalog/modules/{module_id}", json=stolen)

    assert response.status_code == 409
    assert response.get_json()["type"].endswith("content-belongs-elsewhere")
    assert faults(response) == {"/contents/0/id", "/contents/2/id"}
    details = [error["detail"] for error in response.get_json()["errors"]]
    assert details == ["The content is current in module biology.", "The content is current in module botany."]
    assert response.get_json()["detail"] == details[0]
    assert stored(app) == before


def test_repeated_ids_are_refused_where_they_repeat(service: Callers, publish: Publish, app: Flask) -> None:
    publish("algebra", ["sets"])
    before = stored(app)

    ids = ["sets", "maps", "sets", "sets", "rings"]
    repeated = module(*map(content, ids), instructorIds=["ines", "otto", "ines"])
    response = service().put(PATH, json=repeated)

    assert response.status_code == 422
    assert faults(response) == {"/contents/2/id", "/contents/3/id", "/instructorIds/2"}
    assert stored(app) == before


def test_repeated_ids_are_named_together_with_every_other_fault(service: Callers) -> None:
    wrong = module(content("sets"), content("maps", weight=-1), content("sets"), nonsense=1)

    response = service().put(PATH, json=wrong)

    assert response.status_code == 422
    assert faults(response) == {"/contents/1/weight", "/contents/2/id", "/nonsense"}


ACCEPTED: dict[str, list[Any]] = {
    "id": ["a", "0", "_", "-", EVERY_CHARACTER, f"-{EVERY_CHARACTER}", "x" * 255, "me", "stats"],
    "title": ["", " ", "x" * 200, "🎓" * 200, "=1+1", "a\u0301"],
    "section": ["", "x" * 200, "🎓" * 200, None],
    "type": ["video", "x" * 32, "lab-2"],
    "weight": [0, 1, 10_000, 7.0],
    "completionThreshold": [1, 100, 50.0],
    "passingScore": [0, 0.01, 33.33, 99.99, 100, None],
}
TEXT = ["1", "true", "[]", "{}", r'"\u0000"', r'"a\u0000"', r'"\ud800"', r'"\udc00\ud800"', f'"{"x" * 201}"']
NUMBER = ['"1"', "true", "false", "[1]", "{}", "1e400", "-1e-400", "-1"]
IDENTIFIER = [
    '""',
    '"."',
    '".a"',
    '"=a"',
    '"+a"',
    '"@a"',
    '"|a"',
    '"~a"',
    '"\'a"',
    '"a b"',
    '"a/b"',
    r'"a\n"',
    '"é"',
    '"\u0663"',
    f'"{"x" * 256}"',
    *TEXT[:-1],
    "null",
]
SLUG = ['""', '"two words"', '"a/b"', '"-a"', '"vidéo"', r'"video\n"', f'"{"x" * 33}"', *TEXT, "null"]
REFUSED = {
    "id": IDENTIFIER,
    "title": [*TEXT, "null"],
    "section": TEXT,
    "type": SLUG,
    "weight": ["10001", "0.5", "10000.1", "1e-400", *NUMBER, "null"],
    "completionThreshold": ["0", "101", "99.5", "0.99", *NUMBER, "null"],
    "passingScore": ["-0.01", "100.01", "33.333", "1e-400", *NUMBER],
    "retired": ["false"],
    "nonsense": ["1", "null"],
}
"""By the field of a content, values as JSON."""


@pytest.mark.parametrize("field", ACCEPTED)
def test_what_is_within_bounds_is_kept_exactly(field: str, service: Callers) -> None:
    contents = [content(f"content-{place}") | {field: value} for place, value in enumerate(ACCEPTED[field])]

    response = service().put(PATH, json=module(*contents))

    assert response.status_code == 201, response.text
    assert [one[field] for one in response.get_json()["contents"]] == ACCEPTED[field]
    assert service().get(PATH).get_json() == response.get_json()


@pytest.mark.parametrize("field", REFUSED)
def test_what_is_out_of_bounds_is_refused_wherever_it_stands(field: str, service: Callers, app: Flask) -> None:
    places = range(1, len(REFUSED[field]) + 1)
    contents = [content("fine"), *(content(f"content-{place}") | {field: f"VALUE {place}"} for place in places)]
    body = json.dumps(module(*contents))
    for place in places:
        body = body.replace(f'"VALUE {place}"', REFUSED[field][place - 1])

    response = service().put(PATH, data=body, content_type="application/json")

    assert response.status_code == 422, response.text
    assert faults(response) == {f"/contents/{place}/{field}" for place in places}
    assert not any(stored(app).values())


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, {"/title", "/contents"}),
        (module(title=None), {"/title"}),
        (module(title="x" * 201), {"/title"}),
        (module(id="algebra", moduleId="algebra"), {"/moduleId"}),
        (module(id="biology", title=None), {"/id", "/title"}),
        (module(id=None), {"/id"}),
        (module(id=["algebra"]), {"/id"}),
        (module() | {"instructorIds": None}, {"/instructorIds"}),
        (module() | {"contents": None}, {"/contents"}),
        (module() | {"contents": {"0": content()}}, {"/contents"}),
        (module() | {"contents": ["sets", content("maps"), None]}, {"/contents/0", "/contents/2"}),
        (module({}), {"/contents/0/id", "/contents/0/title", "/contents/0/type"}),
        (module(instructorIds="ines"), {"/instructorIds"}),
        (module(instructorIds=None), {"/instructorIds"}),
        (module(instructorIds=["ines", "", "me", 1, None]), {f"/instructorIds/{place}" for place in (1, 2, 3, 4)}),
        (module(content(weight=-1), title=1, nonsense={}), {"/title", "/contents/0/weight", "/nonsense"}),
        (module(**{"a/b~c": 1}), {"/a~1b~0c"}),
    ],
)
def test_every_wrong_field_of_a_module_is_named(
    body: dict[str, Any], pointers: set[str], service: Callers, publish: Publish, app: Flask
) -> None:
    publish("algebra", ["sets"])
    before = stored(app)

    response = service().put(PATH, json=body)

    assert response.status_code == 422, response.text
    assert faults(response) == pointers
    assert stored(app) == before


def many(number: int, **fields: Callable[[int], str]) -> dict[str, Any]:
    """Return a module with so many contents; fields are made of their places."""
    return module(
        *(content(f"c{place}") | {name: make(place) for name, make in fields.items()} for place in range(number))
    )


BOUNDS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "contents": (many(5000), many(5001), "/contents: Must have at most 5000 contents."),
    "types": (many(500, type=str), many(501, type=str), "/contents: Must have at most 500 types."),
    "text": (
        many(1304, section=lambda _: "é" * 190),
        many(1304, section=lambda _: "é" * 200),
        "/contents: Must have at most 524288 bytes of text.",
    ),
    "instructors": (
        module(instructorIds=[f"i{place}" for place in range(1000)]),
        module(instructorIds=[f"i{place}" for place in range(1001)]),
        "/instructorIds: Must have at most 1000 instructors.",
    ),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_module_has_a_size(bound: str, service: Callers, app: Flask) -> None:
    def put(body: dict[str, Any]) -> TestResponse:
        written = json.dumps(body, ensure_ascii=False).encode()  # escaped, an é would take 6 bytes of the body
        return service().put(PATH, data=written, content_type="application/json")

    largest, larger, fault = BOUNDS[bound]
    response = put(larger)

    assert response.status_code == 422
    assert [f"{one['pointer']}: {one['detail']}" for one in response.get_json()["errors"]] == [fault]
    assert not any(stored(app).values())
    response = put(largest)
    assert response.status_code == 201, response.text
    assert service().get(PATH).get_json() == response.get_json()


def test_a_module_that_is_too_large_is_told_every_other_fault_too(service: Callers) -> None:
    wrong = many(5001, type=str) | {"nonsense": 1}
    wrong["contents"][7] = content("c6", weight=-1)

    response = service().put(PATH, json=wrong)

    assert response.status_code == 422
    assert faults(response) == {"/contents", "/contents/7/id", "/contents/7/weight", "/nonsense"}
    assert sum(one["pointer"] == "/contents" for one in response.get_json()["errors"]) == 2


@pytest.mark.parametrize("path", ["/api/progress/sam/algebra", "/api/progress/stats/algebra"])
def test_the_work_for_an_answer_grows_with_the_contents_and_not_faster(path: str, service: Callers) -> None:
    lines = []
    for number in (50, 500):
        assert service().put(PATH, json=many(number, type=str, section=str)).status_code in {200, 201}
        service().get(path)  # which may have statements to compile
        with counting_lines() as counted:
            assert len(service().get(path).get_json()["byType"]) == number
        lines.append(counted.total())

    assert lines[1] < 11 * lines[0]


@contextmanager
def counting_lines() -> Iterator[Counter[str]]:
    """Count the lines of Python that run in this thread, each round of a loop anew."""
    counted: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        counted[event] += event == "line"
        return trace

    usual = sys.gettrace()  # measures coverage
    sys.settrace(trace)
    try:
        yield counted
    finally:
        sys.settrace(usual)


def test_a_path_that_is_no_identifier_leads_nowhere(service: Callers, app: Flask) -> None:
    for module_id in (".algebra", "=1", "%27a", "a%20b", "%C3%A9", "a%00", "x" * 256, "..%2Fx", "a%0A"):
        path = f"/api/catalog/modules/{module_id}"
        assert service().put(path, json=module(content())).status_code == 404, module_id
        assert service().get(path).status_code == 404, module_id
    assert not any(stored(app).values())


def test_a_module_may_have_every_identifier_and_is_not_found_before_it_is_published(
    service: Callers, publish: Publish
) -> None:
    for place, module_id in enumerate((EVERY_CHARACTER, "_", "-", "-a'b", "x" * 255, "me", "stats")):
        path = f"/api/catalog/modules/{module_id}"
        assert service().get(path).status_code == 404, module_id
        assert publish(module_id, [f"sets-{place}"])["id"] == module_id
        assert service().get(path).get_json()["contents"][0]["id"] == f"sets-{place}"

"""What is read of a learner's progress: the dashboard, the view of a module, and that answers are as declared."""

from typing import Any

import msgspec
import pytest
from flask import Flask

from progress_service.web.endpoint import Operation
from progress_service.web.serialization import encode
from tests.callers import Caller
from tests.conftest import Callers, Publish, stored
from tests.progress.sending import moment, refusal, send

ALGEBRA: list[dict[str, Any]] = [
    {"id": "intro", "section": "Basics"},
    {"id": "quiz", "type": "quiz", "weight": 2, "passingScore": 50},
    {"id": "outro"},
    {"id": "extra", "type": "quiz", "weight": 0, "title": "For the curious"},
]
EMPTY_SUMMARY = {
    "enrolledModules": 0,
    "activeModules": 0,
    "completedModules": 0,
    "totalContents": 0,
    "completedContents": 0,
    "progressPercentage": None,
    "timeSpentSeconds": 0,
    "lastActivityAt": None,
}


@pytest.fixture(autouse=True)
def _catalog(publish: Publish, service: Callers) -> None:
    """Modules to learn from, one that nobody enrolls in, and a learner who is there as noise."""
    publish("algebra", ALGEBRA, title="Algebra I")
    publish("biology", ["cells", "genes"], instructor_ids=["iris"])
    publish("chess", ["rules"])
    publish("drawing", ["lines"])
    noise = {"userId": "nora", "progressPercentage": 77, "timeSpentSeconds": 1000, "occurredAt": moment(1)}
    updates = [noise | {"contentId": content} for content in ("intro", "quiz", "cells", "rules")]
    assert service().post("/api/progress/batch", json={"updates": updates}).status_code == 200


def learn(service: Caller, content: str, minute: float, **fields: Any) -> dict[str, Any]:
    return send(service, content, userId="sam", occurredAt=moment(minute), **fields)


def enroll(service: Caller, module: str, **fields: str) -> dict[str, Any]:
    response = service.put(f"/api/enrollments/sam/{module}", json=fields)
    assert response.status_code in {200, 201}, response.text
    return dict(response.get_json())


def read(caller: Caller, path: str) -> dict[str, Any]:
    response = caller.get(f"/api/progress/{path}")
    assert response.status_code == 200, response.text
    return dict(response.get_json())


def refusals(caller: Caller, *paths: str) -> set[tuple[int, str]]:
    """Return in which ways reading is refused."""
    return {refusal(caller.get(f"/api/progress/{path}"))[:2] for path in paths}


def shown(caller: Caller, query: str = "") -> list[str]:
    return [module["moduleId"] for module in read(caller, f"sam{query}")["modules"]]


def test_the_dashboard_adds_up_a_learners_modules(service: Callers, student: Callers) -> None:
    learn(service(), "quiz", 2, progressPercentage=100, score=1, maxScore=2, timeSpentSeconds=60)
    algebra = learn(service(), "intro", 5, progressPercentage=33, timeSpentSeconds=5, position="p")["enrollment"]
    chess = learn(service(), "rules", 4, progressPercentage=100, timeSpentSeconds=7)["enrollment"]
    learn(service(), "genes", 9, progressPercentage=50, timeSpentSeconds=9)
    biology = enroll(service(), "biology", status="dropped")
    drawing = enroll(service(), "drawing", status="paused")
    assert biology.pop("counted") is drawing.pop("counted") is True
    assert read(student(), "sam") == {
        "userId": "sam",
        "summary": {
            "enrolledModules": 3,
            "activeModules": 1,
            "completedModules": 1,
            "totalContents": 5,
            "completedContents": 2,
            "progressPercentage": 52.75,  # of 58.25, 100 and 0
            "timeSpentSeconds": 72,
            "lastActivityAt": moment(5),
        },
        "continue": {
            "moduleId": "algebra",
            "contentId": "intro",
            "title": "Intro",
            "progressPercentage": 33,
            "position": "p",
            "lastActivityAt": moment(5),
        },
        "modules": [
            biology | {"title": "Biology"},
            algebra | {"title": "Algebra I"},
            chess | {"title": "Chess"},
            drawing | {"title": "Drawing"},
        ],
    }


def test_the_progress_of_the_summary_is_the_mean_of_the_modules_exact_values(
    publish: Publish, service: Callers
) -> None:
    for number in (1, 2):
        publish(f"thirds-{number}", [f"{number}-{letter}" for letter in "abc"])
        learn(service(), f"{number}-a", 1, progressPercentage=100)
        learn(service(), f"{number}-b", 1, progressPercentage=99 if number == 2 else 100)
    dashboard = read(service(), "sam")
    assert {one["moduleId"]: one["progressPercentage"] for one in dashboard["modules"]} == {
        "thirds-1": 66.66,
        "thirds-2": 66.33,
    }
    assert dashboard["summary"]["progressPercentage"] == 66.5  # and not 66.49, the mean of what is shown


def test_the_modules_are_in_the_order_of_latest_activity(service: Callers) -> None:
    for content, minute in (("cells", 3), ("rules", 5), ("intro", 1), ("genes", 2)):
        learn(service(), content, minute)
    enroll(service(), "drawing")
    assert shown(service()) == ["chess", "biology", "algebra", "drawing"]
    learn(service(), "intro", 9)
    assert shown(service()) == ["algebra", "chess", "biology", "drawing"]


@pytest.mark.parametrize(
    ("status", "modules"),
    [("active", ["algebra"]), ("paused", ["drawing"]), ("dropped", ["biology"]), ("completed", ["chess"])],
)
def test_the_status_filters_the_modules_and_nothing_else(service: Callers, status: str, modules: list[str]) -> None:
    for content in ("intro", "cells", "rules"):
        learn(service(), content, 1, progressPercentage=100)
    enroll(service(), "biology", status="dropped")
    enroll(service(), "drawing", status="paused")
    everything, filtered = read(service(), "sam"), read(service(), f"sam?status={status}")
    assert filtered == everything | {"modules": [one for one in everything["modules"] if one["moduleId"] in modules]}
    assert shown(service(), f"?status={status}") == modules


def test_query_parameters_that_are_wrong_repeated_or_unknown_are_refused(student: Callers) -> None:
    wrong = ["sam?status=", "sam?status=Active", "sam?status=not_started", "sam?status=active&status=paused"]
    unknown = ["sam?colour=red", "sam/algebra?status=active"]
    assert refusals(student(), *wrong, *unknown) == {(400, "malformed-request")}


def resumed(service: Caller) -> str | None:
    """Return the content on which sam goes on."""
    following = read(service, "sam")["continue"]
    return following and str(following["contentId"])


def test_the_learner_continues_with_the_unfinished_record_that_was_the_last_thing_done(
    publish: Publish, service: Callers
) -> None:
    assert resumed(service()) is None
    for content, minute in (("intro", 5), ("quiz", 4), ("extra", 3), ("cells", 6), ("rules", 7)):
        learn(service(), content, minute, progressPercentage=20)
    assert resumed(service()) == "rules"
    learn(service(), "rules", 8, progressPercentage=100)
    assert resumed(service()) == "cells"
    enroll(service(), "biology", status="dropped")
    assert resumed(service()) == "intro"
    enroll(service(), "algebra", status="paused")
    assert resumed(service()) == "intro"
    learn(service(), "extra", 9)
    assert resumed(service()) == "extra", "optional or not"


def test_between_two_contents_the_learner_goes_on_with_the_next_unfinished_of_the_module(
    publish: Publish, service: Callers
) -> None:
    learn(service(), "cells", 1, progressPercentage=10)  # another course, left long ago
    learn(service(), "outro", 2, progressPercentage=30)
    learn(service(), "intro", 3, progressPercentage=100)
    assert read(service(), "sam")["continue"] == {
        "moduleId": "algebra",
        "contentId": "quiz",
        "title": "Quiz",
        "progressPercentage": 0,
        "position": None,
        "lastActivityAt": None,
    }
    learn(service(), "quiz", 4, progressPercentage=100, score=1, maxScore=1)
    assert read(service(), "sam")["continue"]["contentId"] == "outro"
    assert read(service(), "sam")["continue"]["progressPercentage"] == 30
    publish("algebra", [{"id": "index"}, *ALGEBRA[2:]])
    assert resumed(service()) == "index", "what was worked on last is retired: the first unfinished of all"
    publish("algebra", [{"id": "index"}, *ALGEBRA])
    learn(service(), "outro", 5, progressPercentage=100)
    assert resumed(service()) == "index", (
        "nothing counted is unfinished behind the last: the first of all, before the optional"
    )
    learn(service(), "index", 6, progressPercentage=100)
    assert read(service(), "sam?status=completed")["modules"][0]["moduleId"] == "algebra"
    assert resumed(service()) == "cells", "of a completed module optional contents do not call"


def test_the_next_content_is_behind_the_last_unless_that_is_retired(publish: Publish, service: Callers) -> None:
    learn(service(), "quiz", 1, progressPercentage=100, score=1, maxScore=1)
    assert resumed(service()) == "outro", "and not the intro, which is in front of the quiz"
    publish("algebra", ["intro", "index", "outro"])
    assert resumed(service()) == "intro", "the first of all"


def test_a_completed_module_that_has_grown_is_gone_on_with(publish: Publish, service: Callers) -> None:
    learn(service(), "genes", 1)
    learn(service(), "rules", 2, progressPercentage=100)
    assert resumed(service()) == "genes"
    publish("chess", ["rules", {"id": "openings", "weight": 0}])
    assert resumed(service()) == "genes"
    publish("chess", ["rules", {"id": "openings", "weight": 0}, "endings"])
    assert resumed(service()) == "endings"


def test_optional_contents_alone_are_gone_on_with_while_the_module_is_under_way(
    publish: Publish, service: Callers
) -> None:
    optional = [{"id": content, "weight": 0} for content in ("lines", "forms")]
    publish("drawing", optional)
    learn(service(), "forms", 1, progressPercentage=100)
    assert resumed(service()) == "lines"
    learn(service(), "lines", 2, progressPercentage=100)
    assert resumed(service()) is None
    publish("drawing", [*optional, {"id": "shades", "weight": 0}])
    assert resumed(service()) == "shades"
    enroll(service(), "drawing", status="dropped")
    assert resumed(service()) is None


def test_of_modules_that_nobody_has_begun_the_one_enrolled_in_last_is_begun(publish: Publish, service: Callers) -> None:
    publish("drawing", [{"id": "extra-lines", "weight": 0}, "lines"])
    enroll(service(), "biology", enrolledAt="2026-01-01T00:00:00Z")
    enroll(service(), "drawing", enrolledAt="2026-01-03T00:00:00Z")
    enroll(service(), "chess", enrolledAt="2026-01-02T00:00:00Z")
    assert resumed(service()) == "lines"
    learn(service(), "genes", 1)
    assert resumed(service()) == "genes"


def test_a_record_that_fails_its_passing_score_is_continued_at_99(service: Callers) -> None:
    learn(service(), "quiz", 1, progressPercentage=100, score=1, maxScore=3)
    assert read(service(), "sam")["continue"] == {
        "moduleId": "algebra",
        "contentId": "quiz",
        "title": "Quiz",
        "progressPercentage": 99,
        "position": None,
        "lastActivityAt": moment(1),
    }


@pytest.mark.parametrize("learner", ["sam", "nobody"])
def test_a_learner_nobody_has_heard_of_has_an_empty_dashboard(admin: Callers, learner: str) -> None:
    assert read(admin(), learner) == {"userId": learner, "summary": EMPTY_SUMMARY, "continue": None, "modules": []}


def test_who_has_dropped_everything_has_an_empty_summary(service: Callers) -> None:
    learn(service(), "cells", 1, progressPercentage=40, timeSpentSeconds=9)
    enroll(service(), "biology", status="dropped")
    dashboard = read(service(), "sam")
    assert (dashboard["summary"], dashboard["continue"]) == (EMPTY_SUMMARY, None)
    assert [module["status"] for module in dashboard["modules"]] == ["dropped"]


def test_the_view_of_a_module_shows_its_contents_in_order_and_sums_by_type_and_section(
    service: Callers, student: Callers
) -> None:
    quiz = learn(service(), "quiz", 1, progressPercentage=100, score=1, maxScore=2, timeSpentSeconds=60)["progress"]
    extra = learn(service(), "extra", 2, progressPercentage=100, timeSpentSeconds=5)["progress"]
    document = learn(service(), "outro", 3, progressPercentage=40, timeSpentSeconds=7)
    missing = ["progress"]
    expected: list[tuple[Any, ...]] = [
        ("intro", "Intro", "video", "Basics", 1, None, None, 25, 0, missing),
        ("quiz", "Quiz", "quiz", None, 2, 50, quiz, 50, 50, []),
        ("outro", "Outro", "video", None, 1, None, document["progress"], 25, 10, missing),
        ("extra", "For the curious", "quiz", None, 0, None, extra, 0, 0, []),
    ]
    assert read(student(), "sam/algebra") == {
        "module": {"id": "algebra", "title": "Algebra I"},
        "enrollment": document["enrollment"],
        "contents": [
            {
                "contentId": content_id,
                "title": title,
                "type": kind,
                "section": section,
                "weight": weight,
                "completionThreshold": 100,
                "passingScore": passing_score,
                "progress": record,
                "status": record["status"] if record else "not_started",
                "share": share,
                "contributed": contributed,
                "missing": missing,
            }
            for content_id, title, kind, section, weight, passing_score, record, share, contributed, missing in expected
        ],
        "byType": [
            {"type": "video", "totalContents": 2, "completedContents": 0, "timeSpentSeconds": 7},
            {"type": "quiz", "totalContents": 1, "completedContents": 1, "timeSpentSeconds": 65},
        ],
        "bySection": [
            {"section": "Basics", "totalContents": 1, "completedContents": 0, "timeSpentSeconds": 0},
            {"section": None, "totalContents": 2, "completedContents": 1, "timeSpentSeconds": 72},
        ],
    }
    assert document["enrollment"]["progressPercentage"] == 60


def explained(document: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the share of each content of a module, and what it contributes."""
    return {one["contentId"]: (one["share"], one["contributed"]) for one in document["contents"]}


def test_what_contents_contribute_adds_up_to_the_percentage_before_it_is_rounded(
    publish: Publish, service: Callers
) -> None:
    publish("chess", ["rules", "openings", "endings"])
    for content, percentage in (("rules", 100), ("openings", 50)):
        learn(service(), content, 1, progressPercentage=percentage)
    document = read(service(), "sam/chess")
    assert explained(document) == {"rules": (33.33, 33.33), "openings": (33.33, 16.66), "endings": (33.33, 0)}
    assert document["enrollment"]["progressPercentage"] == 50


@pytest.mark.parametrize("status", ["active", "completed"])
def test_in_a_module_without_weight_contents_have_no_share(status: str, publish: Publish, service: Callers) -> None:
    publish("chess", [{"id": "rules", "weight": 0}])
    learn(service(), "rules", 1, progressPercentage=100)
    enroll(service(), "chess", status=status)
    document = read(service(), "sam/chess")
    assert explained(document) == {"rules": (0, 0)}
    assert document["enrollment"]["progressPercentage"] == (100 if status == "completed" else 0)


@pytest.mark.parametrize(
    ("reported", "missing", "enough"),
    [
        ({}, ["progress", "score"], {"progressPercentage": 80, "score": 6, "maxScore": 10}),
        ({"progressPercentage": 79.9, "score": 5, "maxScore": 10}, ["progress", "score"], None),
        ({"progressPercentage": 80}, ["score"], {"score": 6, "maxScore": 10}),
        ({"progressPercentage": 100, "score": 59, "maxScore": 100}, ["score"], {"score": 60, "maxScore": 100}),
        ({"score": 6, "maxScore": 10}, ["progress"], {"progressPercentage": 80}),
        ({"progressPercentage": 80, "score": 6, "maxScore": 10}, [], None),
    ],
)
def test_an_update_that_gives_what_is_missing_completes_the_record(
    reported: dict[str, Any], missing: list[str], enough: dict[str, Any] | None, publish: Publish, service: Callers
) -> None:
    publish("chess", [{"id": "rules", "completionThreshold": 80, "passingScore": 60}])

    def found() -> tuple[str, list[str]]:
        (content,) = read(service(), "sam/chess")["contents"]
        assert (content["completionThreshold"], content["passingScore"]) == (80, 60)
        return content["status"], content["missing"]

    assert found() == ("not_started", ["progress", "score"])
    learn(service(), "rules", 1, **reported)
    assert found() == ("in_progress" if missing else "completed", missing)
    if enough:
        learn(service(), "rules", 2, **enough)
        assert found() == ("completed", [])


def test_nothing_is_missing_from_what_is_excused_or_was_completed_by_an_easier_rule(
    publish: Publish, service: Callers
) -> None:
    publish("chess", [{"id": "rules", "completionThreshold": 10}, "endings"])
    learn(service(), "rules", 1, progressPercentage=10)
    assert service().put("/api/progress/sam/chess/endings/excuse").status_code == 200
    publish("chess", [{"id": "rules", "passingScore": 60, "weight": 3}, "endings"])

    document = read(service(), "sam/chess")

    assert [(one["status"], one["missing"]) for one in document["contents"]] == [("completed", []), ("excused", [])]
    assert explained(document) == {"rules": (75, 75), "endings": (25, 25)}
    assert service().delete("/api/progress/sam/chess/endings/excuse").status_code == 204
    assert read(service(), "sam/chess")["contents"][1]["missing"] == ["progress"]


def test_sections_are_in_the_order_of_their_first_contents_and_contents_without_a_section_are_a_group(
    publish: Publish, service: Callers
) -> None:
    sections = {"cells": None, "genes": "Two", "fungi": "One", "ferns": "Two", "frogs": None}
    publish("biology", [{"id": content, "section": section} for content, section in sections.items()])
    for seconds, content in enumerate(sections, start=1):
        learn(service(), content, 1, timeSpentSeconds=seconds)

    learner, module = read(service(), "sam/biology"), read(service(), "stats/biology")

    assert [(one["section"], one["timeSpentSeconds"]) for one in learner["bySection"]] == [
        (None, 6),
        ("Two", 6),
        ("One", 3),
    ]
    assert [(one["section"], one["contents"]) for one in module["bySection"]] == [(None, 2), ("Two", 2), ("One", 1)]


def test_the_view_of_a_module_without_enrollment_shows_what_there_is_to_learn(student: Callers) -> None:
    document = read(student(), "sam/algebra")
    assert document["enrollment"] is None
    assert [content["status"] for content in document["contents"]] == ["not_started"] * 4
    assert {content["progress"] for content in document["contents"]} == {None}
    assert explained(document) == {"intro": (25, 0), "quiz": (50, 0), "outro": (25, 0), "extra": (0, 0)}
    assert [one["missing"] for one in document["contents"]] == [
        ["progress"],
        ["progress", "score"],
        ["progress"],
        ["progress"],
    ]
    assert [one["totalContents"] for one in document["byType"]] == [2, 1]
    assert {one["completedContents"] + one["timeSpentSeconds"] for one in document["byType"]} == {0}


def test_retired_content_is_not_shown_but_its_time_stays_with_the_enrollment(
    publish: Publish, service: Callers
) -> None:
    learn(service(), "intro", 1, progressPercentage=100, timeSpentSeconds=8)
    quiz = learn(service(), "quiz", 2, progressPercentage=50, timeSpentSeconds=5)["progress"]
    publish("algebra", [ALGEBRA[0] | {"weight": 3}, ALGEBRA[2]])
    learn(service(), "quiz", 3, timeSpentSeconds=2)
    document = read(service(), "sam/algebra")
    assert [content["contentId"] for content in document["contents"]] == ["intro", "outro"]
    assert [one["type"] for one in document["byType"]] == ["video"]
    assert explained(document) == {"intro": (75, 75), "outro": (25, 0)}
    current = {"progressPercentage": 75, "completedContents": 1, "totalContents": 2, "timeSpentSeconds": 15}
    assert current.items() <= document["enrollment"].items()
    assert current.items() <= read(service(), "sam")["modules"][0].items()

    publish("algebra", ALGEBRA)
    document = read(service(), "sam/algebra")
    assert document["contents"][1]["progress"] == quiz | {"timeSpentSeconds": 7, "lastActivityAt": moment(3)}
    assert document["enrollment"]["progressPercentage"] == 50


@pytest.mark.parametrize(("role", "sub"), [("student", "sam"), ("instructor", "ines"), ("admin", "ada")])
def test_me_stands_for_the_caller(app: Flask, role: str, sub: str) -> None:
    caller = Caller(app, role, sub)
    send(caller, "intro", progressPercentage=12)
    for path in ("", "/algebra"):
        assert read(caller, f"me{path}") == read(caller, f"{sub}{path}")
    assert read(caller, "me")["userId"] == sub


@pytest.mark.parametrize(("role", "sub"), [("student", "sam"), ("instructor", "iris")])
def test_another_learners_progress_is_not_to_be_seen(app: Flask, role: str, sub: str) -> None:
    paths = ["nora", "nora/algebra", "nobody", "nora/nothing"]
    assert refusals(Caller(app, role, sub), *paths) == {(403, "forbidden")}


def test_instructors_see_learners_in_the_modules_that_they_teach(instructor: Callers, admin: Callers) -> None:
    assert read(instructor("iris"), "nora/biology") == read(admin(), "nora/biology")
    assert read(instructor("ines"), "nora/chess") == read(admin(), "nora/chess")
    assert refusals(instructor("ines"), "nora/biology", "nora") == {(403, "forbidden")}


def test_a_module_that_is_unknown_or_cannot_be_one_is_not_found(student: Callers) -> None:
    paths = ["sam/nothing", "me/nothing", "sam/intro", "sam/-algebra", "sam/a%20b"]
    assert refusals(student(), *paths) == {(404, "not-found")}


def test_what_cannot_be_a_learner_is_not_found(admin: Callers) -> None:
    paths = [".sam", "a%20b", "%3D1", "a" * 256, "events", "events/algebra"]
    assert refusals(admin(), *paths) == {(404, "not-found")}


def test_reading_changes_nothing(app: Flask, service: Callers, student: Callers) -> None:
    learn(service(), "intro", 1)
    before = stored(app)
    for path in ("sam", "me?status=active", "sam/algebra", "sam/drawing"):
        read(student(), path)
    assert stored(app) == before


CALLS: list[tuple[str, str, Any]] = [
    ("PUT", "/api/catalog/modules/music", {"title": "Music", "contents": [{"id": "notes", "title": "N", "type": "a"}]}),
    ("PUT", "/api/catalog/modules/music", {"title": "Music", "contents": []}),
    ("PUT", "/api/enrollments/sam/algebra", {}),
    ("PUT", "/api/enrollments/sam/algebra", {"status": "paused"}),
    ("POST", "/api/progress", {"userId": "sam", "contentId": "intro"}),
    (
        "POST",
        "/api/progress",
        {"userId": "sam", "contentId": "quiz", "progressPercentage": 1, "score": 1, "maxScore": 3},
    ),
    ("POST", "/api/progress", {"userId": "sam", "contentId": "intro", "progressPercentage": 100, "position": "end"}),
    ("POST", "/api/progress/batch", {"updates": [{"userId": "sam", "contentId": "rules", "progressPercentage": 100}]}),
    ("PUT", "/api/progress/{record}/complete", {"score": 2, "maxScore": 3}),
    ("PATCH", "/api/progress/{record}", {"progressPercentage": 1, "score": None, "maxScore": None}),
    ("PUT", "/api/progress/sam/algebra/quiz/excuse", None),
    ("PUT", "/api/webhooks/lms", {"url": "https://hooks.example.org/progress"}),
    ("PUT", "/api/webhooks/lms", {"url": "https://hooks.example.org/progress"}),
    ("POST", "/api/webhooks/lms/secret", None),
]
"""What changes something, in an order in which all of it succeeds; what only reads is found in the URL map."""
LAST_CALLS: list[tuple[str, str, Any]] = [
    ("DELETE", "/api/progress/sam/algebra/quiz/excuse", None),
    ("DELETE", "/api/progress/sam/algebra/quiz", None),
    ("POST", "/api/progress/sam/merge", {"into": "nora"}),
    ("DELETE", "/api/enrollments/nora/chess", None),
    ("DELETE", "/api/progress/nora/algebra", None),
    ("DELETE", "/api/progress/nora", None),
    ("DELETE", "/api/webhooks/lms", None),
]
"""What takes away what is read before."""

QUERIES = {"/api/progress/stats/<module_id>/timeline": "?from=2024-01-01&to=2024-01-31"}
"""The parameters that reading needs."""


def operation(app: Flask, endpoint: str) -> Operation | None:
    declared: Operation | None = getattr(app.view_functions[endpoint], "operation", None)
    return declared if declared and declared.policy else None


def test_every_answer_is_as_its_document_declares(app: Flask, service: Callers) -> None:
    declared = [(rule, one) for rule in app.url_map.iter_rules() if (one := operation(app, rule.endpoint))]
    reads = [
        ("GET", url.replace("<user_id>", learner).replace("<module_id>", module).replace("<webhook_id>", "lms"), None)
        for url in [rule.rule + QUERIES.get(rule.rule, "") for rule, _ in declared if "GET" in (rule.methods or ())]
        for learner, module in [("sam", "algebra"), ("nora", "chess"), ("nobody", "drawing")]
        if (learner, url[:16]) != ("nobody", "/api/enrollments")
    ]
    seen, record = set(), ""
    for method, path, body in [*CALLS, *reads, *LAST_CALLS]:
        response = service().call(method, path.format(record=record), json=body)
        endpoint, _ = app.url_map.bind("").match(path.partition("?")[0], method)
        seen.add((endpoint, response.status_code))
        one = operation(app, endpoint)
        assert one is not None
        declared_as = one.answers[response.status_code]
        if declared_as is None:
            assert not response.data
            continue
        if not isinstance(declared_as, type):
            assert response.mimetype == one.content_type.partition(";")[0] != "application/json"
            continue
        assert encode(msgspec.json.decode(response.data, type=declared_as)) == response.data
        document = response.get_json()
        record = document["progress"]["id"] if "progress" in document else record
    assert seen == {(rule.endpoint, status) for rule, one in declared for status in one.answers}

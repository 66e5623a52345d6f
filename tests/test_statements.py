"""How many statements a request needs does not depend on how much there is to record, to read or to publish."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from werkzeug.test import TestResponse

from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements

Request: TypeAlias = Callable[[], TestResponse]
"""The request whose statements are counted, when everything is ready for it."""


class School:
    """Modules with contents, and learners on them; all identifiers begin with the school's name."""

    def __init__(self, name: str, service: Caller, publish: Publish) -> None:
        self.name, self.service, self.publish = name, service, publish
        self.learner, self.module, self.content = f"{name}-u0", f"{name}-m0", f"{name}-m0-c0"

    def fill(self, modules: int = 1, contents: int = 1, learners: int = 1) -> list[dict[str, Any]]:
        """Publish modules, let every learner start all of their contents, and return the updates that did so."""
        updates = self.updates(modules, contents, learners)
        for module in range(modules):
            self.publish(f"{self.name}-m{module}", [f"{self.name}-m{module}-c{place}" for place in range(contents)])
        for start in range(0, len(updates), 1000):
            self.send(updates[start : start + 1000])
        return updates

    def updates(self, modules: int, contents: int, learners: int) -> list[dict[str, Any]]:
        """Return an update of each learner on each content."""
        return [
            {"userId": f"{self.name}-u{learner}", "contentId": f"{self.name}-m{module}-c{content}", "position": "p"}
            for content in range(contents)
            for learner in range(learners)
            for module in range(modules)
        ]

    def send(self, updates: list[dict[str, Any]]) -> TestResponse:
        response: TestResponse = self.service.post("/api/progress/batch", json={"updates": updates})
        assert response.status_code == 200, response.text
        return response

    def post(self, **update: Any) -> TestResponse:
        """Send an update about the first learner and content."""
        response: TestResponse = self.service.post(
            "/api/progress", json={"userId": self.learner, "contentId": self.content, **update}
        )
        return response

    def put(self, contents: int, instructors: int = 1, **rule: int) -> TestResponse:
        """Publish the first module, with so many contents and instructors."""
        document = {
            "title": "Module",
            "instructorIds": [f"ines{place}" for place in range(instructors)],
            "contents": [
                {"id": f"{self.module}-c{place}", "title": "Content", "type": f"type{place}", **rule}
                for place in range(contents)
            ],
        }
        response: TestResponse = self.service.put(f"/api/catalog/modules/{self.module}", json=document)
        return response


def first_update(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    return lambda: school.post(userId="newcomer")


def completing_update(school: School, size: int) -> Request:
    updates = school.fill(contents=size, learners=2)
    school.send(
        [update | {"progressPercentage": 100} for update in updates if update["contentId"] != "m0-0"] or updates
    )
    return lambda: school.post(progressPercentage=100, score=1, maxScore=2)


def completion(school: School, size: int) -> Request:
    school.fill(contents=size + 1, learners=2)
    record_id = school.post().get_json()["progress"]["id"]
    return lambda: school.service.put(f"/api/progress/{record_id}/complete", json={"timeSpentSeconds": 1})


def first_batch(school: School, size: int) -> Request:
    """A batch of 1 or of 300 updates of 10 learners in 5 modules, which begins all of it."""
    school.fill(modules=5, contents=6, learners=0)
    return lambda: school.send(school.updates(5, 6, 10)[:size])


def repeated_batch(school: School, size: int) -> Request:
    """A batch of 1 or of 300 updates of records that there are, several of each."""
    updates = school.fill(modules=5, contents=3, learners=10)
    more = [update | {"timeSpentSeconds": 1} for update in [*updates, *updates]]
    return lambda: school.send(more[:size])


def batch_with_sessions(school: School, size: int) -> Request:
    updates = school.fill(modules=5, contents=3, learners=10)
    school.send([update | {"session": "s", "timeSpentSeconds": 1} for update in updates])
    more = [
        update | {"session": session, "timeSpentSeconds": 2} for session in ("s", "t") for update in reversed(updates)
    ]
    return lambda: school.send(more[:size])


def dashboard(school: School, size: int) -> Request:
    school.fill(modules=size, contents=2)
    return lambda: school.service.get(f"/api/progress/{school.learner}")


def module_view(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    return lambda: school.service.get(f"/api/progress/{school.learner}/{school.module}")


def statistics(school: School, size: int) -> Request:
    school.fill(contents=size, learners=size)
    return lambda: school.service.get(f"/api/progress/stats/{school.module}")


def overview(school: School, size: int) -> Request:
    school.fill(modules=size, contents=2, learners=2)
    return lambda: school.service.get("/api/progress/stats")


def report(school: School, size: int) -> Request:
    school.fill(contents=size, learners=size)
    return lambda: school.service.get(f"/api/progress/stats/{school.module}/report")


def matrix(school: School, size: int) -> Request:
    school.fill(contents=size, learners=size)
    return lambda: school.service.get(f"/api/progress/stats/{school.module}/matrix?limit=200")


def filtered_roster(school: School, size: int) -> Request:
    school.fill(contents=2, learners=size)
    path = f"/api/progress/stats/{school.module}/learners?sort=-lastActivity&userIds={school.learner}"
    query = f"stalledOn={school.module}-c1&stalledDays=1&contentId={school.content}&contentStatus=in_progress"
    return lambda: school.service.get(f"{path}&{query}")


def roster_of_a_content(school: School, size: int) -> Request:
    school.fill(contents=2, learners=size)
    path = f"/api/progress/stats/{school.module}/learners?sort=-progress&limit=20"
    return lambda: school.service.get(f"{path}&contentId={school.content}&contentStatus=in_progress")


def first_publication(school: School, size: int) -> Request:
    return lambda: school.put(size, instructors=size)


def same_publication(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    school.put(size)
    return lambda: school.put(size)


def other_weights(school: School, size: int) -> Request:
    school.fill(contents=size, learners=size)
    return lambda: school.put(size, weight=3)


def retirement(school: School, size: int) -> Request:
    """All but one content goes, after which every learner has completed the module."""
    updates = school.fill(contents=size + 1, learners=size)
    school.send([update | {"progressPercentage": 100} for update in updates if update["contentId"] == school.content])
    return lambda: school.put(1)


def relaxed_rule(school: School, size: int) -> Request:
    """Every learner has completed the module once a lower percentage is enough."""
    updates = school.fill(contents=size, learners=size)
    school.send([update | {"progressPercentage": 50} for update in updates])
    return lambda: school.put(size, completionThreshold=50)


def catalog_document(school: School, size: int) -> Request:
    school.fill(contents=size)
    return lambda: school.service.get(f"/api/catalog/modules/{school.module}")


def catalog_list(school: School, size: int) -> Request:
    school.fill(modules=size)
    return lambda: school.service.get("/api/catalog/modules")


def enrollment(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    return lambda: school.service.put(f"/api/enrollments/{school.learner}/{school.module}", json={"status": "paused"})


def uncounted_enrollment(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    return lambda: school.service.put(f"/api/enrollments/{school.learner}/{school.module}", json={"counted": False})


def reset(school: School, size: int) -> Request:
    school.fill(contents=size, learners=2)
    return lambda: school.service.delete(f"/api/progress/{school.learner}/{school.module}")


def erasure(school: School, size: int) -> Request:
    school.fill(modules=size, contents=2, learners=2)
    return lambda: school.service.delete(f"/api/progress/{school.learner}")


PATHS: list[tuple[Callable[[School, int], Request], int]] = [
    (first_update, 50),
    (completing_update, 50),
    (completion, 50),
    (first_batch, 300),
    (repeated_batch, 300),
    (batch_with_sessions, 300),
    (dashboard, 20),
    (module_view, 50),
    (statistics, 50),
    (overview, 50),
    (matrix, 30),
    (report, 50),
    (filtered_roster, 50),
    (roster_of_a_content, 50),
    (first_publication, 50),
    (same_publication, 50),
    (other_weights, 50),
    (retirement, 50),
    (relaxed_rule, 30),
    (catalog_document, 50),
    (catalog_list, 20),
    (enrollment, 50),
    (uncounted_enrollment, 50),
    (reset, 50),
    (erasure, 20),
]


@pytest.mark.parametrize(("path", "many"), PATHS, ids=[path.__name__ for path, _ in PATHS])
def test_one_and_many_take_the_same_statements(
    path: Callable[[School, int], Request],
    many: int,
    service: Callers,
    publish: Publish,
    statements: Statements,
) -> None:
    needed = []
    for name, size in (("small", 1), ("large", many)):
        request = path(School(name, service(), publish), size)
        with statements() as sent:
            response = request()
        assert response.status_code in {200, 201, 204}, response.text
        needed.append(list(sent))

    assert needed[0]
    assert needed[0] == needed[1]

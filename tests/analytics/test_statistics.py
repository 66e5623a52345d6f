"""A module's statistics, figure by figure, against a count of the requests that were sent."""

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from math import floor
from random import Random
from typing import Any

import pytest

from tests.callers import Caller
from tests.conftest import Callers, Publish, Statements

MINUTE = 60


def shown(total: Fraction | int, population: int) -> float | None:
    """Divide, rounded down to two decimals; None over nobody."""
    return floor(100 * Fraction(total) / population) / 100 if population else None


def statistics(caller: Caller, module_id: str) -> Any:
    answer = caller.get(f"/api/progress/stats/{module_id}")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def send(caller: Caller, *updates: dict[str, Any]) -> None:
    response = caller.post("/api/progress/batch", json={"updates": updates})
    assert response.status_code == 200, response.text


def reach(caller: Caller, percentages: dict[str, float], content_id: str = "sets") -> None:
    """Let each learner reach a percentage of a content."""
    progress = percentages.items()
    send(caller, *({"userId": u, "contentId": content_id, "progressPercentage": p} for u, p in progress))


def enroll(caller: Caller, *user_ids: str, status: str = "active", module_id: str = "algebra") -> None:
    for user_id in user_ids:
        response = caller.put(f"/api/enrollments/{user_id}/{module_id}", json={"status": status})
        assert response.status_code in {200, 201}, response.text


class Recount:
    """What was sent about one module, and the statistics that follow from it."""

    def __init__(self, module: dict[str, Any]) -> None:
        self.module = module
        self.updates: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self.status: dict[str, str] = {}

    def update(self, update: dict[str, Any]) -> None:
        self.updates[update["userId"], update["contentId"]].append(update)
        self.status.setdefault(update["userId"], "active")
        self.settle()

    def change(self, user_id: str, status: str) -> None:
        if self.status.get(user_id) != "completed":
            self.status[user_id] = status
        self.settle()

    def publish(self, module: dict[str, Any]) -> None:
        self.module = module
        self.settle()

    def reset(self, user_id: str) -> None:
        self.updates = defaultdict(list, {key: sent for key, sent in self.updates.items() if key[0] != user_id})
        if self.status[user_id] == "completed":
            self.status[user_id] = "active"

    def settle(self) -> None:
        for user_id, status in self.status.items():
            counted = [one["id"] for one in self.module["contents"] if one["weight"]]
            if status in ("active", "paused") and counted and all(self.percent(user_id, one) == 100 for one in counted):
                self.status[user_id] = "completed"

    def scores(self, user_id: str, content_id: str) -> list[Fraction]:
        sent = self.updates[user_id, content_id]
        return [Fraction(100 * one["score"], one["maxScore"]) for one in sent if "score" in one]

    def percent(self, user_id: str, content_id: str) -> int:
        furthest = max((one["progressPercentage"] for one in self.updates[user_id, content_id]), default=0)
        (content,) = [one for one in self.module["contents"] if one["id"] == content_id]
        passing = Fraction(content["passingScore"] or 0)
        passed = max(self.scores(user_id, content_id), default=Fraction(-1)) >= passing
        done = furthest >= content["completionThreshold"] and (passed or content["passingScore"] is None)
        return 100 if done else min(furthest, 99)

    def progress(self, user_id: str) -> Fraction:
        contents = self.module["contents"]
        weighted = sum(one["weight"] * self.percent(user_id, one["id"]) for one in contents)
        return Fraction(weighted, sum(one["weight"] for one in contents) or 1)

    def of_contents(self, contents: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """Sum up some contents over whoever started them."""
        pairs = [
            (user_id, one["id"]) for one in contents for user_id in self.status if self.updates[user_id, one["id"]]
        ]
        completed = sum(self.percent(*pair) == 100 for pair in pairs)
        seconds = sum(update["timeSpentSeconds"] for pair in pairs for update in self.updates[pair])
        return {
            "started": len(pairs),
            "completed": completed,
            "completionRate": shown(100 * completed, len(pairs)),
            "averageTimeSpentSeconds": shown(seconds, len(pairs)),
        }

    def content(self, content: dict[str, Any]) -> dict[str, Any]:
        best = [max(scores) for user_id in self.status if (scores := self.scores(user_id, content["id"]))]
        return {
            "contentId": content["id"],
            **{name: content[name] for name in ("title", "type", "section", "weight")},
            **self.of_contents([content]),
            "excused": 0,
            "averageScorePercentage": shown(sum(Fraction(floor(100 * score), 100) for score in best), len(best)),
            "stalled": 0,  # since all that is sent here has just happened
        }

    def by_group(self, group: str) -> list[dict[str, Any]]:
        groups = defaultdict(list)
        for one in self.module["contents"]:
            groups[one[group]].append(one)
        return [{group: name, "contents": len(ours), **self.of_contents(ours)} for name, ours in groups.items()]

    def statistics(self) -> dict[str, Any]:
        contents = self.module["contents"]
        count = {one: [*self.status.values()].count(one) for one in ("active", "paused", "dropped", "completed")}
        started = {user_id for (user_id, _), sent in self.updates.items() if sent}
        staying = sorted(self.progress(user_id) for user_id, status in self.status.items() if status != "dropped")
        seconds = sum(update["timeSpentSeconds"] for sent in self.updates.values() for update in sent)
        return {
            "moduleId": self.module["id"],
            "title": self.module["title"],
            "learners": {
                "enrolled": len(self.status),
                **count,
                "started": len(started),
                "notStarted": len(self.status) - len(started),
            },
            "completionRate": shown(100 * count["completed"], len(staying)),
            "averageProgressPercentage": shown(sum(staying, Fraction()), len(staying)),
            "medianProgressPercentage": floor(staying[(len(staying) - 1) // 2]) if staying else None,
            "progressDistribution": [sum(one // 10 == tenth for one in staying) for tenth in range(11)],
            "timeSpent": {"totalSeconds": seconds, "averageSecondsPerLearner": shown(seconds, len(started))},
            "contents": [self.content(one) for one in contents],
            "byType": self.by_group("type"),
            "bySection": self.by_group("section"),
        }


def random_update(random: Random, content_ids: list[str]) -> dict[str, Any]:
    update: dict[str, Any] = {
        "userId": f"user-{random.randrange(9)}",
        "contentId": random.choice(content_ids),
        "progressPercentage": random.choice([0, 1, 33, 50, 80, 99, 100, 100, 100]),
        "timeSpentSeconds": random.choice([0, 1, 59, 60, 14_400]),
    }
    maximum = random.choice([None, 3, 7, 1_000_000])
    return update | ({"score": random.randint(0, maximum), "maxScore": maximum} if maximum else {})


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_is_what_a_recount_of_the_requests_gives(seed: int, service: Callers, publish: Publish) -> None:
    random = Random(seed)
    algebra: list[dict[str, Any]] = [
        {"id": "maps", "weight": 3, "section": "One"},
        {"id": "sets", "type": "quiz", "passingScore": 33.33, "completionThreshold": 50},
        {"id": "rings", "type": "lab", "completionThreshold": 80},
        {"id": "notes", "weight": 0},
    ]
    recounts = {
        "algebra": Recount(publish("algebra", algebra)),
        "biology": Recount(publish("biology", ["cells", {"id": "genes", "weight": 7}])),
    }

    def work(requests: int) -> None:
        """Let learners study, pause, drop out, return and start again, and compare."""
        for _ in range(requests):
            module_id = random.choice(["algebra", "algebra", "biology"])
            recount, user_id = recounts[module_id], f"user-{random.randrange(12)}"
            content_ids = [one["id"] for one in recount.module["contents"]]
            match random.randrange(8):
                case 0:
                    status = random.choice(["active", "paused", "dropped"])
                    enroll(service(), user_id, status=status, module_id=module_id)
                    recount.change(user_id, status)
                case 1 if user_id in recount.status:
                    assert service().delete(f"/api/progress/{user_id}/{module_id}").status_code == 204
                    recount.reset(user_id)
                case _:
                    updates = [random_update(random, content_ids) for _ in range(random.randint(1, 5))]
                    send(service(), *updates)
                    for update in updates:
                        recount.update(update)
        for module_id, recount in recounts.items():
            assert statistics(service(), module_id) == recount.statistics()

    work(20)
    work(10)
    algebra[0]["weight"], algebra[3]["weight"] = 1, 2
    recounts["algebra"].publish(publish("algebra", [*algebra[::-1], {"id": "groups", "type": "lab"}]))
    work(0)
    work(10)


def test_a_module_without_learners_has_counts_of_zero_and_no_averages(service: Callers, publish: Publish) -> None:
    publish("biology", ["cells"])
    module = publish("algebra", [{"id": "sets", "section": "One"}, {"id": "maps", "weight": 0}], title="Algebra I")
    reach(service(), {"sam": 100}, "cells")

    found = statistics(service(), "algebra")

    nothing = {"started": 0, "completed": 0, "completionRate": None, "averageTimeSpentSeconds": None}
    figures = nothing | {"averageScorePercentage": None, "excused": 0, "stalled": 0}
    assert found == Recount(module).statistics()
    assert found == {
        "moduleId": "algebra",
        "title": "Algebra I",
        "learners": dict.fromkeys(("enrolled", "active", "paused", "dropped", "completed", "started", "notStarted"), 0),
        "completionRate": None,
        "averageProgressPercentage": None,
        "medianProgressPercentage": None,
        "progressDistribution": [0] * 11,
        "timeSpent": {"totalSeconds": 0, "averageSecondsPerLearner": None},
        "contents": [
            {"contentId": "sets", "title": "Sets", "type": "video", "section": "One", "weight": 1, **figures},
            {"contentId": "maps", "title": "Maps", "type": "video", "section": None, "weight": 0, **figures},
        ],
        "byType": [{"type": "video", "contents": 2, **nothing}],
        "bySection": [{"section": "One", "contents": 1, **nothing}, {"section": None, "contents": 1, **nothing}],
    }


def test_a_module_without_contents_has_learners_at_zero(service: Callers, publish: Publish) -> None:
    publish("algebra", [])
    enroll(service(), "sam", "uma")

    found = statistics(service(), "algebra")

    assert found["contents"] == found["byType"] == found["bySection"] == []
    assert (found["completionRate"], found["averageProgressPercentage"]) == (0, None)
    assert found["medianProgressPercentage"] is None
    assert found["progressDistribution"] == [0] * 11
    assert found["timeSpent"] == {"totalSeconds": 0, "averageSecondsPerLearner": None}


def test_in_a_module_without_weight_nobody_gets_anywhere_but_contents_are_counted(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", [{"id": "sets", "weight": 0}])
    reach(service(), {"sam": 100, "uma": 50})

    found = statistics(service(), "algebra")

    assert (found["learners"]["active"], found["learners"]["completed"]) == (2, 0)
    assert (found["completionRate"], found["averageProgressPercentage"]) == (0, None)
    assert found["medianProgressPercentage"] is None
    assert found["progressDistribution"] == [0] * 11
    assert (found["contents"][0]["started"], found["contents"][0]["completionRate"]) == (2, 50)
    assert (found["byType"][0]["started"], found["byType"][0]["completed"]) == (2, 1)


@pytest.mark.parametrize("contents", [[], [{"id": "sets", "weight": 0}]], ids=["empty", "optional"])
def test_a_module_that_loses_all_its_weight_has_no_percentage_but_keeps_its_completions(
    contents: list[Any], service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    publish("biology", ["cells"])
    reach(service(), {"sam": 100, "uma": 60})
    reach(service(), {"sam": 100}, "cells")
    publish("algebra", contents)

    found = statistics(service(), "algebra")
    shown = {user_id: service().get(f"/api/progress/{user_id}").get_json() for user_id in ("sam", "uma")}

    assert (found["learners"]["completed"], found["completionRate"]) == (1, 50)
    assert (found["averageProgressPercentage"], found["medianProgressPercentage"]) == (None, None)
    assert found["progressDistribution"] == [0] * 11
    assert (shown["sam"]["summary"]["completedModules"], shown["sam"]["summary"]["progressPercentage"]) == (2, 100)
    assert [one["progressPercentage"] for one in shown["sam"]["modules"]] == [100, 100]
    assert shown["uma"]["summary"]["progressPercentage"] is None
    assert [one["progressPercentage"] for one in shown["uma"]["modules"]] == [0]
    assert service().get("/api/progress/uma/algebra").get_json()["enrollment"] == {
        name: value for name, value in shown["uma"]["modules"][0].items() if name != "title"
    }


def visit(caller: Caller, **update: Any) -> Any:
    response = caller.post("/api/progress", json={"contentId": "sets", **update})
    assert response.status_code in {200, 201}, response.text
    return response.get_json()


def test_instructors_who_look_at_what_they_teach_are_not_its_learners(
    service: Callers, instructor: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"], instructor_ids=["ines", "ivan"])
    enroll(service(), "ivan")
    before = (
        statistics(service(), "algebra"),
        service()
        .get("/api/progress/stats/algebra/timeline", query_string={"from": "2024-01-01", "to": "2024-01-31"})
        .get_json(),
    )

    visit(instructor("ines"), progressPercentage=100, timeSpentSeconds=60)

    after = statistics(service(), "algebra")
    assert after == before[0]
    assert instructor().get("/api/progress/me").get_json()["summary"]["completedModules"] == 1
    roster = service().get("/api/progress/stats/algebra/learners").get_json()["items"]
    assert {one["userId"]: one["counted"] for one in roster} == {"ines": False, "ivan": True}

    visit(instructor("otto"))
    visit(instructor("ivan"))
    visit(service("lms"), userId="ines")
    assert statistics(service(), "algebra")["learners"]["started"] == 2, "otto is a learner, and so is who was enrolled"


def test_who_counts_or_no_longer_counts_enters_or_leaves_every_figure_at_once(
    service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets", "maps"])
    reach(service(), {"sam": 100, "uma": 40})
    reach(service(), {"uma": 40}, "maps")
    path, timeline = (
        "/api/enrollments/sam/algebra",
        "/api/progress/stats/algebra/timeline?from=2020-01-01&to=2020-12-31",
    )
    send(service(), {"userId": "sam", "contentId": "maps", "timeSpentSeconds": 9, "occurredAt": "2020-02-03T04:05:06Z"})
    with_sam = statistics(service(), "algebra"), service().get(timeline).get_json()
    assert with_sam[0]["learners"]["enrolled"] == 2
    assert sum(day["timeSpentSeconds"] for day in with_sam[1]["days"]) == 9

    assert service().put(path, json={"counted": False}).get_json()["counted"] is False
    without = statistics(service(), "algebra"), service().get(timeline).get_json()
    assert (without[0]["learners"]["enrolled"], without[0]["averageProgressPercentage"]) == (1, 40)
    assert [one["started"] for one in without[0]["contents"]] == [1, 1]
    assert not any(day["activeLearners"] for day in without[1]["days"])

    reach(service(), {"sam": 100}, "maps")
    assert service().delete("/api/progress/sam/algebra").status_code == 204
    assert service().get(path).get_json()["counted"] is False
    assert (statistics(service(), "algebra"), service().get(timeline).get_json()) == without

    reach(service(), {"sam": 100})
    send(service(), {"userId": "sam", "contentId": "maps", "timeSpentSeconds": 9, "occurredAt": "2020-02-03T04:05:06Z"})
    assert service().put(path, json={"counted": True}).get_json()["counted"] is True
    assert (statistics(service(), "algebra"), service().get(timeline).get_json()) == with_sam


def test_those_who_dropped_out_count_in_the_contents_only(service: Callers, publish: Publish) -> None:
    publish("algebra", [{"id": "sets", "type": "quiz"}, "maps"])
    reach(service(), {"sam": 50, "uma": 100, "dan": 10})
    effort = {"timeSpentSeconds": 2 * MINUTE, "score": 1, "maxScore": 2}
    send(service(), {"userId": "uma", "contentId": "sets", **effort})
    enroll(service(), "uma", "dan", status="dropped")
    enroll(service(), "pam", status="paused")

    found = statistics(service(), "algebra")

    learners = {"enrolled": 4, "active": 1, "paused": 1, "dropped": 2, "completed": 0, "started": 3, "notStarted": 1}
    assert found["learners"] == learners
    assert (found["completionRate"], found["averageProgressPercentage"], found["medianProgressPercentage"]) == (
        0,
        12.5,
        0,
    )
    assert found["progressDistribution"] == [1, 0, 1] + [0] * 8
    assert found["timeSpent"] == {"totalSeconds": 2 * MINUTE, "averageSecondsPerLearner": 40}
    figures = {"started": 3, "completed": 1, "completionRate": 33.33, "averageTimeSpentSeconds": 40}
    assert found["contents"][0].items() >= (figures | {"averageScorePercentage": 50}).items()
    assert found["byType"][0] == {"type": "quiz", "contents": 1, **figures}


def test_where_everybody_dropped_out_there_is_no_rate_average_or_median(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets"])
    reach(service(), {"sam": 50})
    enroll(service(), "sam", status="dropped")

    found = statistics(service(), "algebra")

    for name in ("completionRate", "averageProgressPercentage", "medianProgressPercentage"):
        assert found[name] is None, name
    assert found["progressDistribution"] == [0] * 11
    assert found["contents"][0]["started"] == 1


@pytest.mark.parametrize(
    ("percentages", "median"),
    [
        ([50], 50),
        ([20, 10], 10),
        ([30, 10, 20], 20),
        ([0, 0, 100, 100], 0),
        ([100, 99], 99),
        ([100, 100], 100),
        ([0, 1, 2, 3, 4], 2),
        ([5, 5, 60], 5),
    ],
)
def test_the_median_is_the_lower_of_two_middle_values(
    percentages: list[int], median: int, service: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    publish("biology", ["cells"])
    reach(service(), {f"user-{place}": percentage for place, percentage in enumerate(percentages)})
    reach(service(), {"user-0": 77}, "cells")

    assert statistics(service(), "algebra")["medianProgressPercentage"] == median


@pytest.mark.parametrize(
    ("finished", "percentage", "tenth"),
    [
        ([], 0, 0),
        (["one"], 0.01, 0),
        (["most-of-ten"], 9.99, 0),
        (["one", "most-of-ten"], 10, 1),
        (["ninety"], 90, 9),
        (["most-of-ten", "ninety"], 99.99, 9),
        (["one", "most-of-ten", "ninety"], 100, 10),
    ],
)
def test_the_distribution_has_a_place_for_every_percentage(
    finished: list[str], percentage: float, tenth: int, service: Callers, publish: Publish
) -> None:
    weights = {"one": 1, "most-of-ten": 999, "ninety": 9000}
    publish("algebra", [{"id": content_id, "weight": weight} for content_id, weight in weights.items()])
    enroll(service(), "sam")
    for content_id in finished:
        reach(service(), {"sam": 100}, content_id)

    found = statistics(service(), "algebra")

    assert found["averageProgressPercentage"] == percentage
    assert found["medianProgressPercentage"] == floor(percentage)
    assert found["progressDistribution"] == [int(place == tenth) for place in range(11)]


def test_the_average_score_is_that_of_the_scores_as_shown_and_of_the_best(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps"])
    scores = [("sam", 1, 3), ("uma", 2, 3), ("uma", 0, 3), ("dan", None, None)]
    for user_id, score, maximum in scores:
        score_fields = {} if score is None else {"score": score, "maxScore": maximum}
        send(service(), {"userId": user_id, "contentId": "sets", **score_fields})

    sets, maps = statistics(service(), "algebra")["contents"]

    # 33.33 and 66.66 as shown; a third and two thirds would be 50.
    assert (sets["started"], sets["averageScorePercentage"]) == (3, 49.99)
    assert maps["averageScorePercentage"] is None


def test_the_average_progress_is_that_of_the_exact_values(service: Callers, publish: Publish) -> None:
    publish("algebra", ["sets", "maps", "rings"])
    reach(service(), {"sam": 100, "uma": 100}, "sets")
    reach(service(), {"uma": 100}, "maps")

    # A third and two thirds; 33.33 and 66.66 would be 49.99.
    assert statistics(service(), "algebra")["averageProgressPercentage"] == 50


def test_only_those_who_may_see_a_module_learn_whether_it_exists(
    admin: Callers, service: Callers, instructor: Callers, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    reach(service(), {"sam": 50})

    callers = (admin(), service(), instructor("ines"), instructor("otto"))
    path = "/api/progress/stats/"
    assert [caller.get(path + "unknown").status_code for caller in callers] == [404, 404, 403, 403]
    assert [caller.get(path + "sets").status_code for caller in callers] == [404, 404, 403, 403]
    assert [caller.get(path + "algebra").status_code for caller in callers] == [200, 200, 200, 403]
    assert statistics(instructor("ines"), "algebra") == statistics(admin(), "algebra")


def test_fifty_contents_and_learners_take_no_more_statements_than_one(
    service: Callers, publish: Publish, statements: Statements
) -> None:
    counted = set()
    for size in (1, 50):
        ids = [f"content-{size}-{place}" for place in range(size)]
        publish(f"module-{size}", ids)
        send(service(), *({"userId": f"user-{place}", "contentId": one} for place, one in enumerate(ids)))
        with statements() as sent:
            statistics(service(), f"module-{size}")
        counted.add(len(sent))

    assert len(counted) == 1

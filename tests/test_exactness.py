"""Whatever happens, in whatever order: every total and statistic is what a recount of the records gives."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

import pytest
from flask import Flask
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Row, select
from sqlalchemy import update as sql_update

from progress_service.store import database, verification
from progress_service.store.database import db
from progress_service.store.models import Content, Enrollment, ProgressRecord
from tests.callers import Caller
from tests.conftest import Callers, examples

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
LEARNERS = ["kim", "sam"]
MODULES = {"algebra": ["a0", "a1", "a2"], "biology": ["b0"]}
TYPES = {"a0": "video", "a1": "quiz", "a2": "video", "b0": "video"}

Document: TypeAlias = dict[str, Any]


class Report(NamedTuple):
    user_id: str
    content_id: str
    percentage: int | None
    seconds: int
    score: int | None
    """Of 7."""
    hour: int


class Batch(NamedTuple):
    reports: list[Report]


class Complete(NamedTuple):
    user_id: str
    content_id: str


class Enroll(NamedTuple):
    user_id: str
    module_id: str
    status: str | None
    counted: bool | None


class Published(NamedTuple):
    id: str
    weight: int = 1
    threshold: int = 100
    passing_score: float | None = None


class Publish(NamedTuple):
    module_id: str
    contents: list[Published]


class Reset(NamedTuple):
    user_id: str
    module_id: str


class Erase(NamedTuple):
    user_id: str


Action: TypeAlias = Report | Batch | Complete | Enroll | Publish | Reset | Erase

learners, modules = st.sampled_from(LEARNERS), st.sampled_from(list(MODULES))
counting = st.sampled_from([None, None, None, True, False])
contents = st.sampled_from([content_id for ids in MODULES.values() for content_id in ids])
reports = st.builds(
    Report,
    learners,
    contents,
    st.none() | st.sampled_from([100, 100, 99, 50, 33, 0]),
    st.integers(0, 100),
    st.none() | st.integers(0, 7),
    st.integers(0, 50),
)


def publications(module_id: str) -> st.SearchStrategy[Publish]:
    published = st.builds(
        Published,
        st.sampled_from(MODULES[module_id]),
        st.sampled_from([1, 0, 3, 10_000]),
        st.sampled_from([100, 50, 1]),
        st.none() | st.sampled_from([50, 71.43]),
    )
    return st.builds(Publish, st.just(module_id), st.lists(published, max_size=3, unique_by=lambda one: one.id))


actions: st.SearchStrategy[Action] = st.one_of(
    reports,
    st.builds(Batch, st.lists(reports, min_size=1, max_size=12)),
    st.builds(Complete, learners, contents),
    st.builds(Enroll, learners, modules, st.sampled_from([None, "active", "paused", "dropped"]), counting),
    *map(publications, MODULES),
    st.builds(Reset, learners, modules),
    st.builds(Erase, learners),
)


def finished(user_id: str, content_id: str) -> Report:
    return Report(user_id, content_id, 100, 60, None, 0)


# What chance would seldom try.
COMPLETED_BY_RETIREMENT = [
    finished("sam", "a0"),
    finished("kim", "a1"),
    Enroll("sam", "algebra", "paused", None),
    Publish("algebra", [Published("a0", 400), Published("a1", 0)]),
    Publish("algebra", [Published("a2"), Published("a0", 7)]),
]
COMPLETED_BY_COMING_BACK = [
    Enroll("sam", "biology", "dropped", None),
    finished("sam", "b0"),
    finished("kim", "b0"),
    Enroll("sam", "biology", "active", None),
]
RECORDED_WHILE_RETIRED = [
    Publish("algebra", [Published("a1", 0), Published("a2")]),
    finished("sam", "a0"),
    finished("sam", "a1"),
    Report("kim", "a0", 50, 60, 3, 0),
    Publish("algebra", [Published("a1", 2), Published("a0", 10_000), Published("a2", 0)]),
]


class Day(NamedTuple):
    user_id: str
    module_id: str
    date: str


class Facts(NamedTuple):
    """What is not counted but given: contents, records, and whether and since when a learner is enrolled."""

    contents: Sequence[Row[Any]]
    records: Sequence[Row[Any]]
    enrollments: Sequence[Row[Any]]


class World:
    """Two learners, and two modules that nobody has begun."""

    def __init__(self, app: Flask, service: Caller) -> None:
        self.app, self.service = app, service
        self.catalog: dict[str, list[str]] = {}
        self.days: Counter[Day] = Counter()
        """The seconds that were reported, by learner, module and day, since the last reset."""
        with app.app_context(), db.engine.begin() as connection:
            for table in reversed(db.metadata.sorted_tables):
                connection.execute(table.delete())
        for module_id, ids in MODULES.items():
            self.perform(Publish(module_id, list(map(Published, ids))))

    def perform(self, action: Action) -> None:
        """Send the request that the action stands for."""
        call, allowed = self.service, {200, 201, 204}
        match action:
            case Report():
                response = call.post("/api/progress", json=update(action))
                self.spend(action)
            case Batch(reports):
                response = call.post("/api/progress/batch", json={"updates": list(map(update, reports))})
                for one in reports:
                    self.spend(one)
            case Complete():
                ids = {(one.user_id, one.content_id): one.id for one in self.facts().records}
                response = call.put(f"/api/progress/{ids.get(action)}/complete")
                allowed = {200, 409} if action in ids else {404}
                if response.status_code == 200:
                    record = response.get_json()["progress"]
                    self.days[Day(action.user_id, record["moduleId"], record["lastActivityAt"][:10])] += 0
            case Enroll(user_id, module_id, status, counted):
                given = {"status": status, "counted": counted}
                body = {name: value for name, value in given.items() if value is not None}
                response = call.put(f"/api/enrollments/{user_id}/{module_id}", json=body)
            case Publish(module_id, contents):
                self.catalog[module_id] = [one.id for one in contents]
                document = {"title": "Module", "contents": list(map(content, contents))}
                response = call.put(f"/api/catalog/modules/{module_id}", json=document)
            case Reset(user_id, module_id):
                response = call.delete(f"/api/progress/{user_id}/{module_id}")
                self.forget(user_id, module_id)
            case Erase(user_id):
                response = call.delete(f"/api/progress/{user_id}")
                self.forget(user_id, *MODULES)
        assert response.status_code in allowed, action

    def spend(self, report: Report) -> None:
        (module_id,) = (module_id for module_id, ids in MODULES.items() if report.content_id in ids)
        day = (BEGIN + timedelta(hours=report.hour)).date()
        self.days[Day(report.user_id, module_id, str(day))] += report.seconds

    def forget(self, user_id: str, *module_ids: str) -> None:
        for day in [day for day in self.days if day.user_id == user_id and day.module_id in module_ids]:
            del self.days[day]

    def roster(self, module_id: str, sort: str) -> list[Document]:
        """Read the roster to its end, one learner at a time."""
        path = f"/api/progress/stats/{module_id}/learners?limit=1&sort={sort}"
        page = self.get(path)
        items = page["items"]
        while page["nextCursor"]:
            page = self.get(f"{path}&cursor={page['nextCursor']}")
            items += page["items"]
        return list(items)

    def get(self, path: str) -> Document:
        response = self.service.get(path)
        assert response.status_code == 200, response.text
        return dict(response.get_json())

    def facts(self) -> Facts:
        with self.app.app_context(), db.engine.connect() as connection:
            tables = [model.__table__ for model in (Content, ProgressRecord, Enrollment)]
            return Facts(*(connection.execute(select(table)).all() for table in tables))

    def drifts(self) -> list[verification.Drift]:
        with self.app.app_context():
            return database.read(lambda connection: list(verification.drifts(connection)))


def update(report: Report) -> Document:
    """Return the update that tells the report."""
    given = {"progressPercentage": report.percentage, "score": report.score}
    return {
        "userId": report.user_id,
        "contentId": report.content_id,
        "timeSpentSeconds": report.seconds,
        "occurredAt": (BEGIN + timedelta(hours=report.hour)).isoformat(),
        **{name: value for name, value in given.items() if value is not None},
        **({} if report.score is None else {"maxScore": 7}),
    }


def content(published: Published) -> Document:
    """Return the content as the platform publishes it."""
    rules = {"completionThreshold": published.threshold, "passingScore": published.passing_score}
    return {
        "id": published.id,
        "title": "Content",
        "type": TYPES[published.id],
        "weight": published.weight,
        **{name: value for name, value in rules.items() if value is not None},
    }


def shown(value: Fraction | None) -> float | None:
    return None if value is None else value * 100 // 1 / 100


def mean(values: Sequence[Fraction | int]) -> Fraction | None:
    return Fraction(sum(values)) / len(values) if values else None


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def progress(facts: Facts, user_id: str, module_id: str) -> Fraction:
    """Return a learner's exact progress in a module, in per cent."""
    weights = {one.id: one.weight for one in facts.contents if one.module_id == module_id and not one.retired}
    mine = {one.content_id: one.progress_percentage for one in facts.records if one.user_id == user_id}
    total = sum(weights.values())
    return Fraction(sum(weight * mine.get(content, 0) for content, weight in weights.items()), total or 1)


def shown_progress(facts: Facts, enrollment: Row[Any]) -> Fraction:
    """Return what an enrollment's percentage is made of: without any weight all or nothing."""
    if any(one.weight for one in facts.contents if one.module_id == enrollment.module_id and not one.retired):
        return progress(facts, enrollment.user_id, enrollment.module_id)
    return Fraction(100 * (enrollment.status == "completed"))


def enrollment_figures(facts: Facts, enrollment: Row[Any]) -> Document:
    """Count everything that an enrollment shows."""
    key = (enrollment.user_id, enrollment.module_id)
    records = [one for one in facts.records if (one.user_id, one.module_id) == key]
    counted = {one.id for one in facts.contents if one.module_id == key[1] and not one.retired and one.weight > 0}
    completed = {one.content_id for one in records if one.completed_at} & counted
    if enrollment.status in {"active", "paused"}:
        assert not counted or completed < counted
    if enrollment.enrolled_by_update:
        assert all(enrollment.enrolled_at <= one.started_at for one in records)
    return {
        "userId": key[0],
        "moduleId": key[1],
        "status": enrollment.status,
        "progressPercentage": shown(shown_progress(facts, enrollment)),
        "completedContents": len(completed),
        "totalContents": len(counted),
        "timeSpentSeconds": sum(one.time_spent_seconds for one in records),
        "enrolledAt": enrollment.enrolled_at,
        "completedAt": enrollment.completed_at,
        "lastActivityAt": max((one.last_activity_at for one in records), default=None),
    }


def summary_figures(facts: Facts, enrollments: Sequence[Document]) -> Document:
    """Count what a dashboard's summary shows over the given enrollments of a learner."""
    kept = [one for one in enrollments if one["status"] != "dropped"]
    weighted = {one.module_id for one in facts.contents if one.weight and not one.retired}
    return {
        "enrolledModules": len(kept),
        "activeModules": sum(one["status"] == "active" for one in kept),
        "completedModules": sum(one["status"] == "completed" for one in kept),
        "totalContents": sum(one["totalContents"] for one in kept),
        "completedContents": sum(one["completedContents"] for one in kept),
        "progressPercentage": shown(
            mean([progress(facts, one["userId"], one["moduleId"]) for one in kept if one["moduleId"] in weighted])
        ),
        "timeSpentSeconds": sum(one["timeSpentSeconds"] for one in kept),
        "lastActivityAt": max((one["lastActivityAt"] for one in kept if one["lastActivityAt"]), default=None),
    }


def statistics_figures(facts: Facts, module_id: str) -> Document:
    """Count what the statistics of a module show."""
    enrollments = [one for one in facts.enrollments if one.module_id == module_id and one.counted]
    counted = {one.user_id for one in enrollments}
    records = [one for one in facts.records if one.module_id == module_id and one.user_id in counted]
    current = sorted(
        (one for one in facts.contents if one.module_id == module_id and not one.retired), key=lambda one: one.ordinal
    )
    statuses = [one.status for one in enrollments]
    staying = [progress(facts, one.user_id, module_id) for one in enrollments if one.status != "dropped"]
    with_percentage = staying if any(one.weight for one in current) else []
    whole = sorted(int(percentage) for percentage in with_percentage)
    started = len({one.user_id for one in records})
    seconds = sum(one.time_spent_seconds for one in records)

    def outcome(ours: Sequence[Row[Any]]) -> Document:
        return {
            "started": len(ours),
            "completed": sum(one.completed_at is not None for one in ours),
            "completionRate": shown(mean([100 * (one.completed_at is not None) for one in ours])),
            "averageTimeSpentSeconds": shown(mean([one.time_spent_seconds for one in ours])),
        }

    def of_contents(ours: Sequence[Row[Any]]) -> list[Row[Any]]:
        return [one for one in records if one.content_id in {content.id for content in ours}]

    def scores(content: Row[Any]) -> list[Fraction]:
        ratios = [Fraction(one.score, one.max_score) for one in of_contents([content]) if one.score is not None]
        return [Fraction(ratio * 10_000 // 1, 100) for ratio in ratios]

    return {
        "moduleId": module_id,
        "title": "Module",
        "learners": {status: statuses.count(status) for status in ("active", "paused", "dropped", "completed")}
        | {"enrolled": len(enrollments), "started": started, "notStarted": len(enrollments) - started},
        "completionRate": shown(Fraction(100 * statuses.count("completed"), len(staying)) if staying else None),
        "averageProgressPercentage": shown(mean(with_percentage)),
        "medianProgressPercentage": whole[(len(whole) - 1) // 2] if whole else None,
        "progressDistribution": [sum(one // 10 == tenth for one in whole) for tenth in range(11)],
        "timeSpent": {
            "totalSeconds": seconds,
            "averageSecondsPerLearner": shown(Fraction(seconds, started) if started else None),
        },
        "contents": [
            {name: getattr(one, name) for name in ("title", "type", "section", "weight")}
            | {"contentId": one.id, **outcome(of_contents([one])), "averageScorePercentage": shown(mean(scores(one)))}
            | {"excused": 0, "stalled": sum(is_stalled(facts, learner, one.id) for learner in enrollments)}
            for one in current
        ],
        "byType": [
            {"type": kind, "contents": len(ours), **outcome(of_contents(ours))}
            for kind in dict.fromkeys(one.type for one in current)
            if (ours := [one for one in current if one.type == kind])
        ],
        "bySection": [
            {"section": section, "contents": len(ours), **outcome(of_contents(ours))}
            for section in dict.fromkeys(one.section for one in current)
            if (ours := [one for one in current if one.section == section])
        ],
    }


def is_stalled(facts: Facts, enrollment: Row[Any], content_id: str) -> bool:
    """Tell whether an unfinished learner was last seen on the content, more than a week ago."""
    if enrollment.last_activity_at is None:
        return False
    latest = {
        one.content_id
        for one in facts.records
        if (one.user_id, one.module_id) == (enrollment.user_id, enrollment.module_id)
        and one.last_activity_at == enrollment.last_activity_at
    }
    assert enrollment.last_content_id in latest
    is_away = datetime.now(UTC) - enrollment.last_activity_at > timedelta(days=7)
    return is_away and enrollment.status in {"active", "paused"} and enrollment.last_content_id == content_id


def timeline_figures(world: World, facts: Facts, module_id: str, first: date, length: int) -> list[Document]:
    """Count what the timeline of a module shows, from a first day on."""

    def happened(times: Iterable[datetime | None], day: date) -> int:
        return sum(time is not None and time.date() == day for time in times)

    enrollments = [one for one in facts.enrollments if one.module_id == module_id and one.counted]
    counted = {one.user_id for one in enrollments}
    records = [one for one in facts.records if one.module_id == module_id and one.user_id in counted]
    completions = [one.completed_at for one in enrollments]
    dates = [first + timedelta(days=place) for place in range(length)]
    active = {
        day: [
            seconds
            for (user_id, ours, other), seconds in world.days.items()
            if (ours, other) == (module_id, str(day)) and user_id in counted
        ]
        for day in dates
    }
    return [
        {
            "date": str(day),
            "activeLearners": len(active[day]),
            "contentsStarted": happened((one.started_at for one in records), day),
            "contentsCompleted": happened((one.completed_at for one in records), day),
            "enrollmentsCompleted": happened(completions, day),
            "timeSpentSeconds": sum(active[day]),
        }
        for day in dates
    ]


def assert_timelines_are_exact(world: World, facts: Facts, module_id: str) -> None:
    """Compare the days of the reports, and those around today, when completions without a report happen."""
    for first in (BEGIN.date() - timedelta(days=1), datetime.now(UTC).date() - timedelta(days=1)):
        last = first + timedelta(days=4)
        timeline = world.get(f"/api/progress/stats/{module_id}/timeline?from={first}&to={last}")
        assert timeline["days"] == timeline_figures(world, facts, module_id, first, 5)


def assert_rosters_are_exact(world: World, facts: Facts, module_id: str, learners: Sequence[Document]) -> None:
    """Compare two orders of the roster with the enrollments that everybody shows."""
    by_user = sorted(learners, key=lambda one: str(one["userId"]))
    exact = {one.user_id: shown_progress(facts, one) for one in facts.enrollments if one.module_id == module_id}
    by_progress = sorted(by_user, key=lambda one: (exact[one["userId"]], one["userId"]), reverse=True)
    by_activity = sorted(by_user, key=lambda one: one["lastActivityAt"] or datetime.min.replace(tzinfo=UTC))
    for sort, expected in (("-progress", by_progress), ("lastActivity", by_activity)):
        listed = list(map(instants_read, world.roster(module_id, sort)))
        counted = {one.user_id: one.counted for one in facts.enrollments if one.module_id == module_id}
        assert [one.pop("counted") for one in listed] == [counted[one["userId"]] for one in listed]
        assert all(one.pop("lastContentId") or one["lastActivityAt"] is None for one in listed)
        assert listed == expected


def instants_read(document: Document) -> Document:
    """Read the times of a document, so that they compare with those of the database."""
    return {name: instant(value) if name.endswith("At") else value for name, value in document.items()}


def by_module(document: Document) -> str:
    return str(document["moduleId"])


def assert_every_outlet_is_exact(world: World) -> None:
    facts = world.facts()
    enrollments = [enrollment_figures(facts, one) for one in facts.enrollments]
    views: dict[tuple[str, str], Document] = {}
    for user_id in LEARNERS:
        mine = [one for one in enrollments if one["userId"] == user_id]
        dashboard = world.get(f"/api/progress/{user_id}")
        shown_by_module = {one["moduleId"]: one for one in dashboard["modules"] if one.pop("title")}
        assert sorted(map(instants_read, dashboard["modules"]), key=by_module) == sorted(mine, key=by_module)
        assert instants_read(dashboard["summary"]) == summary_figures(facts, mine)
        for module_id in MODULES:
            view = world.get(f"/api/progress/{user_id}/{module_id}")
            assert view["enrollment"] == shown_by_module.get(module_id)
            assert [one["contentId"] for one in view["contents"]] == world.catalog[module_id]
            assert_contents_add_up(view)
            views[user_id, module_id] = view
    for module_id in MODULES:
        statistics = world.get(f"/api/progress/stats/{module_id}")
        assert statistics == statistics_figures(facts, module_id)
        assert_matrix_says_the_same(world, statistics, views)
        assert_timelines_are_exact(world, facts, module_id)
        assert_rosters_are_exact(world, facts, module_id, [one for one in enrollments if one["moduleId"] == module_id])
    assert_overview_says_the_same(world, facts)


def assert_matrix_says_the_same(world: World, statistics: Document, views: dict[tuple[str, str], Document]) -> None:
    """Compare a module's matrix with the view that each learner has of it, and with its statistics."""
    module_id = statistics["moduleId"]
    matrix = world.get(f"/api/progress/stats/{module_id}/matrix")
    shown = {learner: view for (learner, viewed), view in views.items() if viewed == module_id and view["enrollment"]}
    assert [item["userId"] for item in matrix["items"]] == sorted(shown)
    for item in matrix["items"]:
        view = shown[item["userId"]]
        assert all(item[name] == view["enrollment"][name] for name in ("status", "progressPercentage"))
        for cell, content in zip(item["contents"], view["contents"], strict=True):
            record = content["progress"]
            assert cell == (record and {name: record[name] for name in cell or ()})
    counted = [item["contents"] for item in matrix["items"] if item["counted"]]
    for place, content in enumerate(statistics["contents"]):
        assert matrix["contents"][place]["contentId"] == content["contentId"]
        statuses = [cells[place]["status"] for cells in counted if cells[place]]
        assert (len(statuses), statuses.count("completed")) == (content["started"], content["completed"])


def assert_overview_says_the_same(world: World, facts: Facts) -> None:
    """Compare the overview with the statistics of each module, and with the latest activity of those who count."""
    for summary in world.get("/api/progress/stats")["modules"]:
        statistics = world.get(f"/api/progress/stats/{summary['moduleId']}")
        counted = [one for one in facts.enrollments if one.module_id == summary["moduleId"] and one.counted]
        activity = max((one.last_activity_at for one in counted if one.last_activity_at), default=None)
        assert instant(summary.pop("lastActivityAt")) == activity
        assert summary == {name: {**statistics, **statistics["learners"]}[name] for name in summary}


def assert_contents_add_up(view: Document) -> None:
    """Compare the sums that a module view shows with the contents that it shows."""
    counted = [one for one in view["contents"] if one["weight"] > 0]
    if view["enrollment"]:
        assert view["enrollment"]["totalContents"] == len(counted)
        assert view["enrollment"]["completedContents"] == sum(one["status"] == "completed" for one in counted)
    for figures in view["byType"]:
        ours = [one for one in view["contents"] if one["type"] == figures["type"]]
        assert figures["totalContents"] == sum(one in counted for one in ours)
        assert figures["completedContents"] == sum(one in counted and one["status"] == "completed" for one in ours)
        assert figures["timeSpentSeconds"] == sum((one["progress"] or {}).get("timeSpentSeconds", 0) for one in ours)
    assert [one["type"] for one in view["byType"]] == list(dict.fromkeys(one["type"] for one in view["contents"]))


def assert_nothing_is_taken_away(before: Facts, after: Facts) -> None:
    """Records and enrollments that are still there never fall back, and complete once."""
    old_records = {one.id: one for one in before.records}
    for record in after.records:
        if old := old_records.get(record.id):
            assert record.progress_percentage >= old.progress_percentage
            assert record.time_spent_seconds >= old.time_spent_seconds
            assert old.completed_at is None or record.completed_at <= old.completed_at
    old_enrollments = {(one.user_id, one.module_id): one for one in before.enrollments}
    for enrollment in after.enrollments:
        if old := old_enrollments.get((enrollment.user_id, enrollment.module_id)):
            assert enrollment.enrolled_at <= old.enrolled_at
            assert old.enrolled_by_update or enrollment.enrolled_at == old.enrolled_at
            assert old.completed_at is None or enrollment.completed_at <= old.completed_at


@pytest.mark.no_cover
@pytest.mark.slow
def test_every_figure_equals_a_recount_after_any_sequence_of_requests(app: Flask, service: Callers) -> None:
    # Without shrinking, which would take minutes of requests: a failure prints a sequence of at most 20 actions.
    @settings(max_examples=examples(40), phases=set(Phase) - {Phase.shrink, Phase.explain})
    @given(st.lists(actions, min_size=5, max_size=20))
    @example(COMPLETED_BY_RETIREMENT)
    @example(COMPLETED_BY_COMING_BACK)
    @example(RECORDED_WHILE_RETIRED)
    def check(sequence: list[Action]) -> None:
        world = World(app, service())
        before = world.facts()
        for action in sequence:
            world.perform(action)
            after = world.facts()
            if not isinstance(action, Reset | Erase):
                assert_nothing_is_taken_away(before, after)
            before = after
        assert world.drifts() == []
        assert_every_outlet_is_exact(world)

    check()


def test_a_drift_is_found(app: Flask, service: Callers) -> None:
    world = World(app, service())
    for user_id in LEARNERS:
        world.perform(Report(user_id, "a0", 50, 10, None, 0))
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(sql_update(Enrollment).filter_by(user_id="sam").values(time_spent_seconds=11))

    assert world.drifts() == [
        ("algebra", "sam", "time_spent_seconds", 11, 10),
        ("algebra", None, "status active time_spent_seconds", 20, 21),  # which is counted from the enrollments
    ]

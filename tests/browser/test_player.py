"""The player of the guide, as it stands there: what it reports is what was played, whatever happens on the way."""

import json
import wave
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, Response, request, send_file
from playwright.sync_api import Page, Route, expect

from tests.callers import token
from tests.conftest import Callers, Publish, served
from tests.guides import files
from tests.waiting import wait_until

FILES = files("player")
REPORTS = "**/api/progress"


def silence() -> bytes:
    """Return a thousand seconds of silence, so that 400 of them are 40 per cent."""
    file = BytesIO()
    with wave.open(file, "wb") as silence:
        silence.setnchannels(1)
        silence.setsampwidth(1)
        silence.setframerate(3000)
        silence.writeframes(b"\x80" * 3000 * 1000)
    return file.getvalue()


@pytest.fixture
def address(app: Flask, publish: Publish) -> Iterator[str]:
    """The address of the gateway before the service, and before what shows the page to the learner of the session."""
    publish("algebra", ["sets", "maps"])
    platform = Flask("platform")
    sound = silence()
    platform.add_url_rule("/sets.wav", view_func=lambda: send_file(BytesIO(sound), "audio/wav", conditional=True))

    @platform.get("/<name>")
    def page(name: str) -> Response:
        text = FILES[name].replace('data-user="sam"', f'data-user="{request.cookies["session"]}"')
        text = text.replace('data-content="sets"', f'data-content="{request.args.get("content", "sets")}"')
        return Response(text, mimetype="text/javascript" if name.endswith(".js") else "text/html")

    made: dict[str, Any] = {}
    exec(FILES["gateway.py"], made)
    tokens = {name: token(name, "student") for name in ("sam", "kim")}
    with served(made["Gateway"](platform, app, tokens)) as address:
        yield address


class Player:
    """The page of the guide in a browser at noon, whose clock stands until the test lets time pass."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.log_in("sam")
        page.clock.install(time="2026-01-31T11:00:00Z")
        page.clock.pause_at("2026-01-31T12:00:00Z")
        page.add_init_script("Math.random = () => 0.5")

    def log_in(self, user_id: str) -> None:
        self.page.context.add_cookies([{"name": "session", "value": user_id, "url": self.address}])

    def open(self, content_id: str = "sets") -> None:
        with self.page.expect_response(REPORTS):
            self.page.goto(f"{self.address}/page.html?content={content_id}")

    def wait(self, seconds: int) -> None:
        """Let time pass; who waits for an answer meanwhile may give it up."""
        self.settle()
        self.page.clock.run_for(1000 * seconds)

    def settle(self) -> None:
        """Let the page hear what has been answered: one more answer comes after those before it."""
        self.page.evaluate("fetch('/page.html').catch(() => null)")

    def seek(self, seconds: int) -> None:
        self.page.evaluate("at => new Promise(done => { video.onseeked = done; video.currentTime = at })", seconds)

    def play(self, seconds: int = 0) -> None:
        self.page.evaluate("video.play()")
        self.wait(seconds)

    def pause(self) -> None:
        self.settle()
        self.page.evaluate("video.pause()")

    def show(self, visibility: str) -> None:
        """Hide the page, or show it again; a browser without windows does so by itself only when it closes a page."""
        self.page.evaluate(
            """hidden => {
                Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            visibility == "hidden",
        )

    def wait_for(self, total: int) -> dict[str, Any]:
        """Wait until the learner has a time, where the page does not tell that it was reported; return the record."""

        def record() -> dict[str, Any]:
            # Asked through the browser's context, since the page's own requests stand still otherwise.
            module = self.page.context.request.get(f"{self.address}/api/progress/me/algebra").json()
            return dict(module["contents"][0]["progress"])

        wait_until(lambda: record()["timeSpentSeconds"] == total, record)
        return record()

    def wait_until_nothing_waits(self) -> None:
        self.page.wait_for_function("localStorage.length === 0")

    @property
    def waiting(self) -> list[dict[str, Any]]:
        """The reports in the queue."""
        return [json.loads(report) for report in self.page.evaluate("Object.values(localStorage)")]


@pytest.fixture
def player(page: Page, address: str) -> Player:
    return Player(page, address)


def test_what_is_played_and_seen_counts(player: Player) -> None:
    player.open()
    player.wait_for(0)
    player.seek(400)
    player.play(30)
    found = player.wait_for(30)
    assert found["progressPercentage"] == 40
    assert 400 <= float(found["position"]) < 410

    player.wait(10)
    player.show("hidden")
    player.wait_for(40)
    with player.page.expect_response(REPORTS):
        player.wait(30)
    player.wait_until_nothing_waits()
    player.wait(300)
    player.show("visible")
    player.wait(7)
    player.pause()
    player.wait_for(47)
    player.wait(300)
    player.play(5)
    player.pause()
    player.wait_for(52)


def test_a_video_that_ends_is_completed(player: Player) -> None:
    player.open()
    player.play(5)
    player.seek(1000)
    assert player.wait_for(5)["status"] == "completed"


def test_a_report_whose_answer_is_lost_counts_once(player: Player) -> None:
    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    player.open()
    player.page.route(REPORTS, lose, times=1)
    with player.page.expect_event("requestfailed"):
        player.play(30)
    player.wait_for(30)
    assert [report["timeSpentSeconds"] for report in player.waiting] == [30]
    player.pause()
    player.wait(30)
    player.wait_until_nothing_waits()
    player.wait_for(30)


def test_what_is_played_without_a_network_counts_when_it_is_back(player: Player) -> None:
    player.open()
    player.page.context.set_offline(True)
    with player.page.expect_event("requestfailed"):
        player.play(30)
    player.wait(600)
    player.settle()
    assert [report["timeSpentSeconds"] for report in player.waiting] == [630]
    player.page.context.set_offline(False)
    player.wait_for(630)


def test_what_was_played_without_a_network_outlives_the_page(player: Player, student: Callers) -> None:
    player.open()
    player.seek(400)
    player.page.context.set_offline(True)
    with player.page.expect_event("requestfailed"):
        player.play(30)
    player.wait(5)
    player.page.goto("about:blank")
    player.page.context.set_offline(False)  # a browser that is quick may send the beacon after all

    player.open()
    found = player.wait_for(35)
    assert found["progressPercentage"] == 40
    expect(player.page.locator("video")).to_have_js_property("currentTime", float(found["position"]))


def test_a_page_that_is_closed_sends_a_beacon(player: Player) -> None:
    player.open()
    player.seek(400)
    player.play(12)
    player.page.close()
    found = player.wait_for(12)
    assert found["progressPercentage"] == 40
    assert 400 <= float(found["position"]) < 410


def test_what_waits_behind_a_beacon_does_not_move_the_learner_back(player: Player, student: Callers) -> None:
    player.open()
    player.seek(400)
    player.play(12)
    player.page.goto("about:blank")
    player.wait_for(12)
    assert student().post("/api/progress", json={"contentId": "sets", "position": "700"}).status_code == 200

    player.open()
    expect(player.page.locator("video")).to_have_js_property("currentTime", 700)
    player.wait_until_nothing_waits()
    assert player.wait_for(12)["position"] == "700"


def test_a_busy_service_is_asked_again_when_it_says(player: Player) -> None:
    player.open()
    sent: list[object] = []
    player.page.on("request", lambda one: sent.append(one) if one.method == "POST" else None)
    player.page.route(REPORTS, lambda route: route.fulfill(status=503, headers={"Retry-After": "100"}), times=1)
    with player.page.expect_response(REPORTS):
        player.play(30)
    player.pause()
    player.wait(95)
    assert len(sent) == 1
    player.wait(30)
    player.wait_for(30)


def test_what_is_refused_is_given_up(player: Player) -> None:
    player.open("nothing")
    with player.page.expect_response(REPORTS) as refused:
        player.play(30)
    assert refused.value.status == 422
    player.wait_until_nothing_waits()


def test_a_learner_who_must_log_in_again_loses_nothing(player: Player) -> None:
    player.open()
    player.log_in("nobody")
    with player.page.expect_response(REPORTS) as refused:
        player.play(30)
    assert refused.value.status == 401
    assert [report["timeSpentSeconds"] for report in player.waiting] == [30]
    player.pause()
    player.log_in("sam")
    player.wait(30)
    player.wait_for(30)


def test_learners_who_share_a_browser_report_for_themselves(player: Player) -> None:
    player.open()
    player.page.context.set_offline(True)
    with player.page.expect_event("requestfailed"):
        player.play(30)
    player.page.evaluate("navigator.sendBeacon = () => false")  # which a slow browser may send when it is online again
    player.page.goto("about:blank")
    player.page.context.set_offline(False)

    player.log_in("kim")
    player.open()
    player.play(20)
    player.pause()
    player.wait_for(20)
    assert {report["userId"] for report in player.waiting} >= {"sam"}
    player.page.goto("about:blank")

    player.log_in("sam")
    player.wait_for(0)
    player.open()
    player.wait_for(30)


@pytest.mark.parametrize(("minutes", "kept"), [(list(range(150)), 100), ([26 * 24 * 60, 24 * 24 * 60], 1)])
def test_reports_wait_within_bounds(player: Player, minutes: list[int], kept: int) -> None:
    player.open()
    player.page.evaluate(
        """minutes => {
            const noon = Date.now();
            for (const session of minutes.map(minute => `${noon - 60_000 * minute}-x`)) {
                const report = { userId: "sam", contentId: "sets", session, timeSpentSeconds: 1 };
                localStorage.setItem(`progress/sam/${session}`, JSON.stringify(report));
            }
        }""",
        minutes,
    )
    player.open()
    player.wait_until_nothing_waits()
    player.wait_for(kept)


def test_a_long_sitting_becomes_two_and_the_sleep_of_the_computer_counts_for_little(
    player: Player, student: Callers
) -> None:
    player.open()
    player.page.evaluate("video.loop = true")
    player.play()
    player.page.clock.fast_forward("13:00:00")
    player.wait_for(60)
    player.wait(30)
    player.wait_for(90)
    sessions = student().get("/api/progress/me/export").get_json()["sessions"]
    assert sorted(one["timeSpentSeconds"] for one in sessions) == [30, 60]

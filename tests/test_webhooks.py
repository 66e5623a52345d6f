"""Webhooks: programs that are told of every change, signed, in order and at least once."""

import itertools
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from flask import Flask
from openapi_schema_validator import OAS31Validator
from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from progress_service.changes import delivering, sending
from progress_service.changes.delivering import Deliverer
from progress_service.changes.hosts import Host, Target, find_host, read_hosts
from progress_service.changes.sending import NotSent
from progress_service.config import ConfigurationError
from progress_service.store.models import Webhook
from progress_service.web.openapi import document as openapi
from tests.callers import KEY, WEBHOOK_KEY, Caller
from tests.conftest import Callers, Publish, application, engine_of, stored, wait_until_settled
from tests.receiver import Message, Receiver, receiving
from tests.waiting import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[1]

HOOK = "/api/webhooks/certificates"
URL = "https://hooks.example.org/progress"


@pytest.fixture
def lms(service: Callers, publish: Publish) -> Caller:
    """A service, on a catalog of a module with two contents and another module."""
    publish("algebra", ["sets", "sums"])
    publish("biology", ["cells"])
    return service()


def finish(caller: Caller, user_id: str, *content_ids: str) -> None:
    updates = [{"userId": user_id, "contentId": one, "progressPercentage": 100} for one in content_ids]
    assert caller.post("/api/progress/batch", json={"updates": updates}).status_code == 200


def put(caller: Caller, status: int = 200, path: str = HOOK, **body: Any) -> dict[str, Any]:
    response = caller.put(path, json={"url": URL, **body})
    assert response.status_code == status, response.text
    return dict(response.get_json())


def test_a_webhook_is_made_changed_read_and_removed(lms: Caller) -> None:
    made = put(lms, 201, types=["content.completed"], moduleIds=["algebra"])
    assert made.pop("secret").startswith("whsec_")
    read = lms.get(HOOK).get_json()
    assert read == made | {"secret": None}
    assert read == {
        "id": "certificates",
        "url": URL,
        "types": ["content.completed"],
        "moduleIds": ["algebra"],
        "active": True,
        "pending": 0,
        "failingSince": None,
        "lastStatus": None,
        "secret": None,
    }
    assert put(lms, **read) == read, "what was read may be sent back"

    changed = put(lms, active=False)
    assert changed == read | {"types": None, "moduleIds": None, "active": False}
    assert lms.get("/api/webhooks").get_json() == {"webhooks": [changed]}
    for _ in range(2):
        assert lms.delete(HOOK).status_code == 204
    assert lms.get("/api/webhooks").get_json() == {"webhooks": []}
    assert [lms.get(HOOK).status_code, lms.post(f"{HOOK}/secret").status_code] == [404, 404]


def test_what_waits_for_a_webhook_is_what_it_wants_since_its_making(app: Flask, lms: Caller) -> None:
    finish(lms, "sam", "sets")
    wait_until_settled(app)
    put(lms, 201, types=["content.completed"], moduleIds=["algebra"])
    put(lms, 201, "/api/webhooks/all")
    finish(lms, "kim", "sets", "cells")
    assert [lms.get(path).get_json()["pending"] for path in (HOOK, "/api/webhooks/all")] == [1, 5]


def test_a_secret_is_told_once_and_is_nowhere_in_the_database(app: Flask, lms: Caller) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = (lms.put(HOOK, json={"url": URL}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json() | {"secret": None}
    replaced, repeated = (lms.post(f"{HOOK}/secret", headers={"Idempotency-Key": "l"}) for _ in range(2))
    assert repeated.get_json() == replaced.get_json() | {"secret": None}

    secrets = [response.get_json()["secret"] for response in (first, replaced)]
    assert secrets[0] != secrets[1]
    dump = repr(stored(app))
    assert not [secret for secret in secrets if secret.removeprefix("whsec_") in dump]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://hooks.example.org:8443/",
        "http://hooks.example.org/",
        "https://hooks.example.org.evil.example/",
        "https://evil.hooks.example.org/",
        "https://hooks.example.org:port/",
        "https://:443/",
        "https://[1]/",
    ],
)
def test_a_url_on_another_host_is_refused(url: str, lms: Caller) -> None:
    response = lms.put(HOOK, json={"url": url})
    assert response.status_code == 422
    assert response.get_json()["errors"] == [{"pointer": "/url", "detail": "Must be on a host that is allowed."}]


def test_a_webhook_whose_host_is_no_longer_allowed_gets_no_new_secret(lms: Caller, database_url: str) -> None:
    put(lms, 201)
    with application(database_url, WEBHOOK_HOSTS="", WEBHOOK_KEY="") as closed:
        service = Caller(closed, "service", "lms")
        assert service.post(f"{HOOK}/secret").status_code == 404
        assert service.put(HOOK, json={"url": URL}).status_code == 422
        assert service.get(HOOK).status_code == 200


def test_hosts_are_named_exactly_or_below_a_name() -> None:
    hosts = read_hosts("Hooks.example.org, *.example.com:8443,http://localhost:9000,http://[::1],")
    assert hosts == [
        Host("https", "hooks.example.org", 443, False),
        Host("https", "example.com", 8443, True),
        Host("http", "localhost", 9000, False),
        Host("http", "::1", 80, False),
    ]
    admitted = {
        "https://HOOKS.example.org": Target("https", "hooks.example.org", 443, "/"),
        "https://a.b.example.com:8443/x?y=1": Target("https", "a.b.example.com", 8443, "/x?y=1"),
        "http://localhost:9000?z": Target("http", "localhost", 9000, "/?z"),
        "http://[::1]/": Target("http", "::1", 80, "/"),
    }
    for url, target in admitted.items():
        found = find_host(hosts, url)
        assert found is not None
        assert found[0] == target
    for url in ("https://example.com:8443/", "https://a.example.com/", "https://notexample.com:8443/"):
        assert find_host(hosts, url) is None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"WEBHOOK_HOSTS": "https://a/b"}, "WEBHOOK_HOSTS"),
        ({"WEBHOOK_HOSTS": "a:0"}, "WEBHOOK_HOSTS"),
        ({"WEBHOOK_HOSTS": "a:65536"}, "WEBHOOK_HOSTS"),
        ({"WEBHOOK_KEY": ""}, "WEBHOOK_KEY"),
        ({"WEBHOOK_KEY": "short"}, "WEBHOOK_KEY"),
        ({"WEBHOOK_KEY": f"{WEBHOOK_KEY},"}, "WEBHOOK_KEY"),
    ],
)
def test_wrong_settings_of_webhooks_end_the_start(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PROGRESS_{named}"), application("sqlite://", **settings):
        pass


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let deliverers of this process look again at once."""
    monkeypatch.setattr(delivering, "PAUSE", 0.02)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def sending_app(database_url: str, receiver: Receiver, lms: Caller) -> Iterator[Flask]:
    """The application, which may tell the receiver, on the database of `lms`."""
    with application(database_url, WEBHOOK_HOSTS=f"http://127.0.0.1:{receiver.port}") as app:
        yield app


@pytest.fixture
def told(sending_app: Flask, receiver: Receiver) -> Caller:
    """A service that has made a webhook at `/hook` of the receiver."""
    service = Caller(sending_app, "service", "lms")
    put(service, 201, url=f"{receiver.url}/hook")
    return service


def deliver(app: Flask) -> None:
    """Deliver what can be delivered now."""
    wait_until_settled(app)
    with app.app_context():
        Deliverer(app).run(once=True)


def alter(app: Flask, **values: Any) -> None:
    """Change the stored webhooks, as time would."""
    with engine_of(app).begin() as connection:
        connection.execute(update(Webhook).values(**values))


def feed(caller: Caller, **query: Any) -> list[dict[str, Any]]:
    wait_until_settled(caller.app)
    return list(caller.get("/api/changes", query_string={"limit": 1000, **query}).get_json()["changes"])


def test_every_change_arrives_in_order_as_a_signed_event(told: Caller, receiver: Receiver) -> None:
    secret = told.post(f"{HOOK}/secret").get_json()["secret"]
    after = told.get("/api/changes?after=now").get_json()["cursor"]
    finish(told, "sam", "sets", "sums")
    told.delete("/api/progress/sam")
    publish = told.put("/api/catalog/modules/chess", json={"title": "Chess", "contents": []})
    assert publish.status_code == 201
    deliver(told.app)

    changes = feed(told, after=after)
    assert [change["type"] for change in changes] == ["learner.erased", "module.published"]
    messages = receiver.messages["/hook"]
    document = openapi.describe(told.app)
    described = document["webhooks"]["change"]["post"]
    body = described["requestBody"]["content"]["application/cloudevents+json"]["schema"]
    validator = OAS31Validator({**document, **body}, format_checker=OAS31Validator.FORMAT_CHECKER)
    for message, change in zip(messages, changes, strict=True):
        event = Verifier(secret).verify(message.body, message.headers)
        assert event == {
            "specversion": "1.0",
            "id": change["id"],
            "source": "urn:progress-service",
            "type": f"progress.{change['type']}",
            "subject": "sam" if change["userId"] else "/chess",
            "time": change["time"],
            "datacontenttype": "application/json",
            "data": change,
        }
        assert message.headers["content-type"] == "application/cloudevents+json"
        validator.validate(event)
        assert {parameter["name"] for parameter in described["parameters"]} <= message.headers.keys()
    assert told.get(HOOK).get_json() | {"pending": 0, "lastStatus": 204} == told.get(HOOK).get_json()


def test_a_webhook_gets_what_it_wants_and_no_more(
    told: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "CHUNK", 2)
    put(told, url=f"{receiver.url}/hook", types=["content.completed"], moduleIds=["algebra"])
    for user_id in ("sam", "kim", "lee"):
        finish(told, user_id, "sets", "cells")
    deliver(told.app)

    events = [message.event for message in receiver.messages["/hook"]]
    assert [(event["type"], event["subject"]) for event in events] == [
        ("progress.content.completed", f"{user_id}/algebra") for user_id in ("sam", "kim", "lee")
    ]
    put(told, url=f"{receiver.url}/hook")
    deliver(told.app)
    assert len(receiver.messages["/hook"]) == 3, "what it did not want before is over"


def test_for_a_day_a_replaced_secret_signs_too(told: Caller, receiver: Receiver) -> None:
    old, new = (told.post(f"{HOOK}/secret").get_json()["secret"] for _ in range(2))
    finish(told, "sam", "sets")
    deliver(told.app)
    first = receiver.messages["/hook"][0]
    for secret in (old, new):
        Verifier(secret).verify(first.body, first.headers)

    alter(told.app, previous_until=datetime.now(UTC))
    finish(told, "kim", "sets")
    deliver(told.app)
    last = receiver.messages["/hook"][-1]
    Verifier(new).verify(last.body, last.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(old).verify(last.body, last.headers)


@pytest.mark.parametrize("status", [302, 400, 500])
def test_what_is_not_accepted_is_sent_again_with_its_id_before_anything_else(
    status: int, told: Caller, receiver: Receiver
) -> None:
    receiver.answers["/hook"] = lambda *_: status
    finish(told, "sam", "sets")
    begun = datetime.now(UTC)
    deliver(told.app)
    webhook = told.get(HOOK).get_json()
    assert (webhook["pending"], webhook["lastStatus"], webhook["active"]) == (2, status, True)
    assert datetime.fromisoformat(webhook["failingSince"]) >= begun
    with engine_of(told.app).connect() as connection:
        next_try = connection.execute(select(Webhook.next_try_at)).scalar_one()
    assert next_try is not None
    assert begun < next_try < datetime.now(UTC) + timedelta(seconds=9)
    alter(told.app, next_try_at=begun + timedelta(hours=1))
    deliver(told.app)  # it is not time yet
    assert len(receiver.messages["/hook"]) == 1
    assert not receiver.messages["/elsewhere"]

    del receiver.answers["/hook"]
    alter(told.app, next_try_at=begun)
    deliver(told.app)
    ids = [change["id"] for change in feed(told) if change["userId"]]
    assert receiver.ids("/hook") == [ids[0], *ids]
    assert (
        told.get(HOOK).get_json() | {"pending": 0, "lastStatus": 204, "failingSince": None} == told.get(HOOK).get_json()
    )


@pytest.mark.parametrize(("status", "failing_days"), [(410, 0), (500, 5)])
def test_a_webhook_is_given_up_and_made_active_again_gets_what_it_missed(
    status: int, failing_days: int, told: Caller, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers["/hook"] = lambda *_: status
    since = datetime.now(UTC) - timedelta(days=failing_days)
    if failing_days:
        alter(told.app, failing_since=since, next_try_at=since)
    finish(told, "sam", "sets")
    deliver(told.app)
    given_up = told.get(HOOK).get_json()
    assert (given_up["active"], given_up["lastStatus"]) == (False, status)
    assert f"webhook certificates is given up: status {status}" in caplog.messages
    alter(told.app, next_try_at=since)
    deliver(told.app)
    assert len(receiver.messages["/hook"]) == 1

    del receiver.answers["/hook"]
    again = put(told, url=f"{receiver.url}/hook")
    assert (again["active"], again["failingSince"]) == (True, None)
    deliver(told.app)
    assert receiver.ids("/hook")[1:] == [change["id"] for change in feed(told) if change["userId"]]


def test_pauses_grow_as_long_as_it_fails_up_to_an_hour(told: Caller, receiver: Receiver) -> None:
    receiver.answers["/hook"] = lambda *_: 500
    finish(told, "sam", "sets")
    for failed, least, most in ((0, 4, 8), (600, 300, 600), (86_400, 1800, 3600)):
        begun = datetime.now(UTC)
        since = begun - timedelta(seconds=failed)
        alter(told.app, failing_since=since, next_try_at=since)
        deliver(told.app)
        lasted = datetime.now(UTC) - begun  # by which the try may be later, and the failing longer
        with engine_of(told.app).connect() as connection:
            next_try = connection.execute(select(Webhook.next_try_at)).scalar_one()
        assert next_try is not None
        assert timedelta(seconds=least) <= next_try - begun <= timedelta(seconds=most) + 2 * lasted


def test_slow_and_dead_receivers_hold_up_nobody_else(
    told: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "ANSWER_SECONDS", PATIENCE_SECONDS)
    good_is_told = Event()

    def wait(*_: Any) -> int:
        assert good_is_told.wait(PATIENCE_SECONDS)
        return 204

    receiver.answers["/hook"] = wait
    put(told, 201, "/api/webhooks/dead", url=f"{receiver.url}/dead")
    receiver.answers["/dead"] = lambda *_: None
    put(told, 201, "/api/webhooks/good", url=f"{receiver.url}/good")
    for user_id in ("sam", "kim"):
        finish(told, user_id, "sets")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(deliver, told.app)
        wait_until(lambda: len(receiver.messages["/good"]) == 4 and bool(receiver.messages["/hook"]))
        assert len(receiver.messages["/hook"]) == 1
        good_is_told.set()
        running.result()

    assert receiver.ids("/hook") == receiver.ids("/good")
    dead = told.get("/api/webhooks/dead").get_json()
    assert (dead["pending"], dead["lastStatus"]) == (4, None)
    assert dead["failingSince"] is not None


def test_an_answer_that_comes_byte_by_byte_is_cut_off(
    told: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trickle(_: Message, handler: BaseHTTPRequestHandler) -> int | None:
        with suppress(OSError):
            for byte in itertools.cycle(b"HTTP/1.1 "):
                handler.wfile.write(bytes([byte]))
                never.wait(0.01)
        return None

    never = Event()
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 0.3)
    receiver.answers["/hook"] = trickle
    finish(told, "sam", "sets")
    deliver(told.app)
    assert told.get(HOOK).get_json()["failingSince"] is not None


def test_two_deliverers_tell_each_change_once(told: Caller, receiver: Receiver) -> None:
    for number in range(10):
        finish(told, f"learner-{number}", "sets")
    with ThreadPoolExecutor() as pool:
        for running in [pool.submit(deliver, told.app) for _ in range(2)]:
            running.result()
    assert receiver.ids("/hook") == [change["id"] for change in feed(told) if change["userId"]]


def deliverer(database_url: str, receiver: Receiver) -> "subprocess.Popen[bytes]":
    """Start a deliverer as operators do."""
    environment = os.environ | {
        "PROGRESS_SQLALCHEMY_DATABASE_URI": database_url,
        "PROGRESS_JWT_SECRET_KEY": KEY,
        "PROGRESS_WEBHOOK_HOSTS": f"http://127.0.0.1:{receiver.port}",
        "PROGRESS_WEBHOOK_KEY": WEBHOOK_KEY,
    }
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "progress", "deliver"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def heeds_term(process: "subprocess.Popen[bytes]") -> bool:
    """Tell whether a process has begun to catch TERM, which would kill it before."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.M)
    return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)


@pytest.mark.slow
def test_nothing_is_lost_or_out_of_order_although_deliverers_are_killed_while_others_write(
    told: Caller, receiver: Receiver, database_url: str
) -> None:
    after = told.get("/api/changes?after=now").get_json()["cursor"]
    put(told, 201, "/api/webhooks/other", url=f"{receiver.url}/other")

    def write(writer: int) -> None:
        for number in range(15):
            finish(told, f"learner-{number % 5}", "sets", "sums")
            assert told.delete(f"/api/progress/learner-{(number + writer) % 5}/algebra").status_code == 204

    running: list[subprocess.Popen[bytes]] = []
    killed: list[str] = []

    def kill(message: Message, _: BaseHTTPRequestHandler) -> int:
        """Kill all deliverers while they wait for the answer to every eighth message."""
        if len(receiver.messages["/hook"]) % 8 == 0 and len(killed) < 2:
            killed.append(message.id)
            for process in running:
                process.kill()
        return 204

    receiver.answers["/hook"] = kill
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, writer) for writer in range(3)]
        for round_ in range(3):
            running[:] = [deliverer(database_url, receiver) for _ in range(2)]
            if round_ < 2:
                assert {process.wait(PATIENCE_SECONDS) for process in running} == {-signal.SIGKILL}
                alter(told.app, leased_by=None, leased_until=None)  # as after a while
        for writer in writers:
            writer.result()
    changes = feed(told, after=after)
    ids = [change["id"] for change in changes]
    for path in ("/hook", "/other"):
        wait_until(lambda path=path: set(receiver.ids(path)) >= set(ids))  # type: ignore[misc]
    for process in running:
        wait_until(partial(heeds_term, process))  # the other may have sent everything before it began
        process.send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE_SECONDS) for process in running] == [0, 0]

    for path in ("/hook", "/other"):
        assert list(dict.fromkeys(receiver.ids(path))) == ids
        repeated = len(receiver.ids(path)) - len(ids)
        assert repeated <= len(killed), "only what was being sent is sent again"
    assert all(receiver.ids("/hook").count(id_) == 2 for id_ in killed)


def test_a_lease_is_kept_while_it_is_sent_to_and_ends_within_a_minute(told: Caller, receiver: Receiver) -> None:
    leases = []

    def look(*_: Any) -> int:
        with engine_of(told.app).connect() as connection:
            leases.append(connection.execute(select(Webhook.leased_until)).scalar_one())
        deliver(told.app)  # which finds nothing to do
        return 204

    receiver.answers["/hook"] = look
    finish(told, "sam", "sets")
    deliver(told.app)
    assert len(receiver.messages["/hook"]) == 2
    now = datetime.now(UTC)
    assert all(lease is not None and now < lease < now + timedelta(minutes=1) for lease in leases)
    with engine_of(told.app).connect() as connection:
        assert connection.execute(select(Webhook.leased_until)).scalar_one() is None


@pytest.mark.parametrize("how", ["removed", "paused", "taken over"])
def test_a_webhook_that_is_changed_meanwhile_is_told_no_more(how: str, told: Caller, receiver: Receiver) -> None:
    def change(*_: Any) -> int:
        if how == "removed":
            told.delete(HOOK)
        elif how == "paused":
            put(told, url=f"{receiver.url}/hook", active=False)
        else:
            alter(told.app, leased_by=uuid4(), leased_until=datetime.now(UTC) + timedelta(minutes=1))
        return 204

    receiver.answers["/hook"] = change
    finish(told, "sam", "sets")
    deliver(told.app)
    assert len(receiver.messages["/hook"]) == 1


def test_a_webhook_that_another_deliverer_has_just_taken_is_left_alone(told: Caller, receiver: Receiver) -> None:
    finish(told, "sam", "sets")
    wait_until_settled(told.app)
    alter(told.app, leased_by=uuid4(), leased_until=datetime.now(UTC) + timedelta(minutes=1))
    with told.app.app_context():
        Deliverer(told.app)._serve("certificates")
    assert not receiver.messages["/hook"]


def test_nothing_is_sent_with_a_lease_that_is_about_to_end(
    told: Caller, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "LEASE", delivering.MARGIN)
    finish(told, "sam", "sets")
    wait_until_settled(told.app)
    deliverer = Deliverer(told.app)
    with told.app.app_context():
        deliverer._serve("certificates")
    assert not receiver.messages["/hook"]
    assert told.get(HOOK).get_json()["failingSince"] is None


def test_a_deliverer_that_is_stopped_finishes_what_it_sends(told: Caller, receiver: Receiver) -> None:
    deliverer = Deliverer(told.app)

    def stop(*_: Any) -> int:
        deliverer.stop()
        return 204

    receiver.answers["/hook"] = stop
    finish(told, "sam", "sets", "sums")
    with told.app.app_context():
        deliverer.run()
    assert len(receiver.messages["/hook"]) == 1
    assert told.get(HOOK).get_json()["pending"] == 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"WEBHOOK_HOSTS": "hooks.example.org"}, "its host is not allowed"),
        ({"WEBHOOK_HOSTS": "http://*.0.0.1:{port}"}, "its addresses are not allowed"),
        ({"WEBHOOK_KEY": WEBHOOK_KEY[::-1][1:] + "="}, "no key decrypts its secret"),
    ],
)
def test_hosts_addresses_and_keys_are_checked_again_before_each_message(
    settings: dict[str, str],
    reason: str,
    told: Caller,
    receiver: Receiver,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finish(told, "sam", "sets")
    hosts = {"WEBHOOK_HOSTS": f"http://127.0.0.1:{receiver.port}"}
    given = {name: value.format(port=receiver.port) for name, value in (hosts | settings).items()}
    with application(database_url, **given) as app:
        deliver(app)
    assert f"webhook certificates is tried again later: {reason}" in capsys.readouterr().err
    assert not receiver.messages["/hook"]


@pytest.mark.parametrize("name", ["hooks.invalid", f"{'a' * 64}.example"])
def test_a_name_that_cannot_be_resolved_is_a_failure(name: str) -> None:
    target, host = Target("http", name, 80, "/"), Host("http", name, 80, False)
    with pytest.raises(NotSent, match="cannot be resolved"):
        sending._post(target, host, {}, b"")


def test_a_name_that_is_resolved_too_late_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 0)
    with pytest.raises(NotSent, match="too long"):
        sending._post(Target("http", "127.0.0.1", 80, "/"), Host("http", "127.0.0.1", 80, False), {}, b"")


def test_of_several_addresses_the_first_that_accepts_is_taken(receiver: Receiver) -> None:
    with sending._connected(["127.0.0.2", "127.0.0.1"], receiver.port, monotonic() + 5) as connection:
        assert connection.getpeername() == ("127.0.0.1", receiver.port)


@pytest.mark.parametrize(
    ("address", "if_named", "if_below"),
    [
        ("93.184.215.14", True, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True, True),
        ("10.0.0.5", True, False),
        ("127.0.0.1", True, False),
        ("::1", True, False),
        ("fd00::1", True, False),
        ("::ffff:10.0.0.5", True, False),
        ("100.64.0.1", True, False),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("0.0.0.0", False, False),
        ("224.0.0.1", False, False),
    ],
)
def test_only_a_host_that_is_named_itself_may_have_a_private_address(
    address: str, if_named: bool, if_below: bool
) -> None:
    hosts = [Host("https", "example.org", 443, is_below) for is_below in (False, True)]
    assert [host.may_be_at(ip_address(address)) for host in hosts] == [if_named, if_below]


def test_a_link_local_address_may_be_named_itself() -> None:
    assert Host("http", "169.254.169.254", 80, False).may_be_at(ip_address("169.254.169.254"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a certificate for localhost, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    path.write_bytes(written)
    return path


@pytest.mark.parametrize(("name", "is_sent"), [("localhost", True), ("127.0.0.1", False)])
def test_with_tls_the_certificate_must_be_that_of_the_host(
    name: str, is_sent: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    sending._tls.cache_clear()
    with receiving(context) as receiver:
        target, host = Target("https", name, receiver.port, "/hook"), Host("https", name, receiver.port, False)
        if is_sent:
            assert sending._post(target, host, {"webhook-id": "1"}, b"{}") == 204
            assert receiver.messages["/hook"][0].headers["host"] == f"localhost:{receiver.port}"
        else:
            with pytest.raises(NotSent, match="SSLCertVerificationError"):
                sending._post(target, host, {}, b"{}")
            assert not receiver.messages["/hook"]
    sending._tls.cache_clear()


def test_a_deliverer_waits_for_a_database_that_is_away_unless_it_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with application(f"sqlite:///{tmp_path}/gone/progress.db") as app, app.app_context():
        with pytest.raises(OperationalError):
            Deliverer(app).run(once=True)
        deliverer = Deliverer(app)
        with ThreadPoolExecutor() as pool:

            def run() -> None:
                with app.app_context():
                    deliverer.run()

            running = pool.submit(run)
            try:
                wait_until(lambda: "no webhook is looked for after OperationalError" in capsys.readouterr().err)
            finally:
                deliverer.stop()
            running.result()


def test_a_fault_leaves_one_webhook_until_its_lease_ends(
    told: Caller, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(told, "sam", "sets")
    monkeypatch.setitem(told.app.extensions, "webhooks", None)
    deliver(told.app)
    assert "webhook certificates is left after AttributeError" in caplog.messages

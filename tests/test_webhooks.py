"""Webhooks: programs that are told of every change, signed, in order and at least once."""

from typing import Any

import pytest
from flask import Flask

from progress_service.changes.hosts import Host, Target, find_host, read_hosts
from progress_service.config import ConfigurationError
from tests.callers import WEBHOOK_KEY, Caller
from tests.conftest import Callers, Publish, application, stored, wait_until_settled

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

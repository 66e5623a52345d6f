"""nginx with the files of deploy/ stands before the service: what it passes on, repeats and refuses."""

import json
import os
import re
import signal
import socketserver
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from flask import Flask

from progress_service import config
from progress_service.web.headers import HEADERS
from progress_service.web.problems import PROBLEM_TYPES
from tests.callers import token
from tests.conftest import Callers, Publish
from tests.deploy import DEPLOY, NGINX
from tests.test_restarts import POSTGRESQL, SQLITE
from tests.test_serving import Server, free_port, gunicorn, is_free
from tests.waiting import PATIENCE_SECONDS, wait_until

BEARER = f"Bearer {token('sam', 'student')}"
LEARNERS = ("sam", "kim", "lee", "ann")
LIMIT = config.DEFAULTS["MAX_CONTENT_LENGTH"]
SLUGS = {
    404: "not-found",
    413: "payload-too-large",
    429: "too-many-requests",
    502: "bad-gateway",
    504: "gateway-timeout",
}


class Nginx:
    """An nginx on a port of its own, before two ports of this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(self, method: str, path: str, body: bytes | None = None, /, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@contextmanager
def nginx(
    folder: Path, first: int, second: int, /, tls: bool = False, instead: tuple[tuple[str, str], ...] = ()
) -> Iterator[Nginx]:
    """Start nginx with the files as they are, but for ports, and for what a test wants `instead` of a text."""
    port = free_port()
    (folder / "progress").mkdir(exist_ok=True)
    upstream = (DEPLOY / "nginx" / "upstream.conf").read_text()
    upstream = upstream.replace("127.0.0.1:8000", f"127.0.0.1:{first}").replace("127.0.0.1:8001", f"127.0.0.1:{second}")
    (folder / "progress" / "upstream.conf").write_text(upstream)
    listen = f"listen 127.0.0.1:{port};"
    if tls:
        listen = (DEPLOY / "nginx" / "listen.conf").read_text()
        listen = re.sub(r"listen \[::\].+", "", listen).replace("listen 443", f"listen 127.0.0.1:{port}")
    (folder / "progress" / "listen.conf").write_text(listen)
    text = (DEPLOY / "nginx" / "progress.conf").read_text()
    for written, other in instead:
        assert written in text
        text = text.replace(written, other)
    (folder / "progress.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    main = (
        f"{user} daemon off; pid nginx.pid; worker_processes 2; events {{}} http {{ {paths} include progress.conf; }}"
    )
    (folder / "nginx.conf").write_text(main)
    command = [str(NGINX), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    process = subprocess.Popen(command, start_new_session=True)
    gateway = Nginx(port)
    try:
        wait_until(lambda: not is_free(port) or process.poll() is not None)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield gateway
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


class Witness(socketserver.ThreadingTCPServer):
    """A server that remembers the requests that it gets, and ends without an answer, or stays silent."""

    daemon_threads = True

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.over = Event()
        self.seen: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Reader)
        self.port = self.server_address[1]


class Reader(socketserver.StreamRequestHandler):
    server: Witness

    def handle(self) -> None:
        line, *fields = iter(self.rfile.readline, b"\r\n")
        (length,) = [int(one.split()[1]) for one in fields if one.lower().startswith(b"content-length:")] or [0]
        self.rfile.read(length)
        self.server.seen.append(line.rsplit(b" ", 1)[0])
        if self.server.silent:
            self.server.over.wait(PATIENCE_SECONDS)


@pytest.fixture
def witness() -> Iterator[Witness]:
    with watching(Witness()) as witness:
        yield witness


@contextmanager
def watching(witness: Witness) -> Iterator[Witness]:
    with witness:
        thread = Thread(target=witness.serve_forever)
        thread.start()
        try:
            yield witness
        finally:
            witness.over.set()
            witness.shutdown()
            thread.join()


def check_problem(response: HTTPResponse, body: bytes, status: int) -> dict[str, Any]:
    """Require a problem document of the gateway, as the contract wants it."""
    problem: dict[str, Any] = json.loads(body)
    slug = SLUGS[status]
    assert (response.status, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert problem == {
        "type": f"urn:progress-service:problem:{slug}",
        "title": slug.replace("-", " ").capitalize(),
        "status": status,
        "detail": problem["detail"],
        "requestId": response.headers["X-Request-ID"],
    }
    assert problem["requestId"]
    assert HEADERS.items() <= dict(response.headers).items()
    assert response.headers.get("Retry-After") == (None if status in (404, 413) else "1")
    return problem


def test_slugs_of_the_gateway_have_the_status_of_the_service() -> None:
    known = {kind.slug: kind.status for kind in PROBLEM_TYPES}
    text = (DEPLOY / "nginx" / "progress.conf").read_text()
    slugs = re.findall(r"map \$status \$problem_slug \{(.+?)\}", text, re.S)[0]

    told = {slug: int(status) for status, slug in re.findall(r"(\d+) ([a-z-]+);", slugs)}
    assert told == {slug: status for status, slug in SLUGS.items()} | {"unavailable": HTTPStatus.SERVICE_UNAVAILABLE}
    assert {slug: told[slug] for slug in known.keys() & told.keys()}.items() <= known.items()


def test_the_gateway_ends_tls(tmp_path: Path, witness: Witness) -> None:
    key = generate_private_key(SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    (tmp_path / "progress").mkdir()
    (tmp_path / "progress" / "tls.crt").write_bytes(certificate)
    (tmp_path / "progress" / "tls.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    with nginx(tmp_path, witness.port, witness.port, tls=True) as gateway:
        trusting = ssl.create_default_context(cadata=certificate.decode())
        connection = HTTPSConnection("localhost", gateway.port, timeout=PATIENCE_SECONDS, context=trusting)
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        check_problem(response, response.read(), 404)
        connection.close()


@pytest.mark.parametrize(
    ("method", "key", "times"),
    [
        ("POST", "", 1),
        ("POST", "a-key", 2),
        ("PATCH", "a-key", 1),
        ("PUT", "", 1),
        ("PUT", "a-key", 2),
        ("GET", "", 2),
        ("DELETE", "", 2),
    ],
)
def test_what_was_sent_is_sent_again_only_if_it_does_the_same_then(
    method: str, key: str, times: int, tmp_path: Path, witness: Witness
) -> None:
    headers = {"Idempotency_Key": key} if key else {}
    with watching(Witness()) as other, nginx(tmp_path, witness.port, other.port) as gateway:
        response, body = gateway.call(method, "/api/progress/a%2Cb%7c?q=%20+", b"{}", **headers)
        check_problem(response, body, 502)
        assert witness.seen + other.seen == [f"{method} /api/progress/a%2Cb%7c?q=%20+".encode()] * times
        assert len(witness.seen) in (times // 2, (times + 1) // 2)


@SQLITE
@pytest.mark.parametrize("key", ["", "a-key"])
def test_a_post_that_no_server_has_taken_is_given_to_another_one(
    key: str, tmp_path: Path, database_url: str, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    headers = {"Authorization": BEARER, "Content_Type": "application/json"} | ({"Idempotency_Key": key} if key else {})
    with gunicorn(database_url) as server, nginx(tmp_path, free_port(), server.port) as gateway:
        response, _ = gateway.call("POST", "/api/progress", b'{"contentId": "sets"}', **headers)
        assert response.status == 201
        assert "Connection refused" in (tmp_path / "error.log").read_text()


def test_a_service_that_stays_silent_is_a_problem_too(tmp_path: Path) -> None:
    with (
        watching(Witness(silent=True)) as one,
        watching(Witness(silent=True)) as other,
        nginx(tmp_path, one.port, other.port, instead=(("310s", "300ms"),)) as gateway,
    ):
        response, body = gateway.call("POST", "/api/progress", b"{}")
        check_problem(response, body, 504)
        wait_until(lambda: one.seen + other.seen)  # which may take longer than nginx is patient here
        assert len(one.seen + other.seen) == 1


def test_only_the_api_is_exposed(tmp_path: Path, witness: Witness) -> None:
    with nginx(tmp_path, witness.port, witness.port) as gateway:
        for path in (
            "/healthz",
            "/readyz",
            "/metrics",
            "/docs/",
            "/openapi.json",
            "/",
            "/api",
            "/api/../metrics",
            "//metrics",
        ):
            response, body = gateway.call("GET", path)
            check_problem(response, body, 404)
    assert witness.seen == []


def test_a_body_is_as_large_as_the_service_takes_it(tmp_path: Path, witness: Witness) -> None:
    assert isinstance(LIMIT, config.Whole)
    with nginx(tmp_path, witness.port, witness.port) as gateway:
        response, body = gateway.call("POST", "/api/progress/batch", bytes(LIMIT.default + 1))
        check_problem(response, body, 413)
        assert witness.seen == []
        response, body = gateway.call("POST", "/api/progress/batch", bytes(LIMIT.default))
        check_problem(response, body, 502)
    assert witness.seen == [b"POST /api/progress/batch"]


def test_too_many_requests_of_an_address_are_refused_unless_it_is_the_platforms(
    tmp_path: Path, witness: Witness
) -> None:
    rare, ours = ("rate=100r/s", "rate=1r/m"), ("# 192.0.2.0/24 0;", "127.0.0.0/8 0;")
    for name, instead, last in (("others", (rare,), 429), ("platform", (rare, ours), 502)):
        (tmp_path / name).mkdir()
        with nginx(tmp_path / name, witness.port, witness.port, instead=instead) as gateway:
            statuses = [gateway.call("GET", "/api/x")[0].status for _ in range(201)]
            assert statuses == [502] * 201
            check_problem(*gateway.call("GET", "/api/x"), last)
            check_problem(*gateway.call("POST", "/api/x", b"{}", Idempotency_Key="a-key"), last)


@SQLITE
def test_ids_of_requests_and_tokens_in_cookies_reach_the_service(
    tmp_path: Path, database_url: str, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    with gunicorn(database_url) as server, nginx(tmp_path, server.port, server.port) as gateway:
        for given, expected in (
            ("the-first", "the-first"),
            ('a"b', "[0-9a-f]{32}"),
            ("a\\b", "[0-9a-f]{32}"),
            ("", "[0-9a-f]{32}"),
        ):
            for path, status in (("/api/progress/me", 401), ("/metrics", 404)):
                response, body = gateway.call("GET", path, **({"X_Request_ID": given} if given else {}))
                problem = json.loads(body)
                assert response.status == problem["status"] == status
                assert problem["requestId"] == response.headers["X-Request-ID"]
                assert re.fullmatch(expected, problem["requestId"])

        cookie = f"session=1; progress_token={BEARER.removeprefix('Bearer ')}"
        assert gateway.call("GET", "/api/progress/me", Cookie=cookie)[0].status == 200
        assert gateway.call("GET", "/api/progress/me", Cookie=cookie, Authorization="Bearer x")[0].status == 401
        assert gateway.call("GET", "/api/progress/me", Cookie="session=1", Authorization=BEARER)[0].status == 200


@POSTGRESQL
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_servers_end_one_by_one_and_every_update_with_a_key_is_answered_and_counts_once(
    usual_app: Flask, end: signal.Signals, tmp_path: Path, database_url: str, publish: Publish, service: Callers
) -> None:
    publish("algebra", ["sets"])
    over = Event()

    def report(gateway: Nginx, learner: str) -> list[int]:
        headers = {"Authorization": f"Bearer {token(learner, 'student')}", "Content_Type": "application/json"}
        statuses = []
        while not over.wait(0.05):
            body = b'{"contentId": "sets", "timeSpentSeconds": 1}'
            statuses.append(
                gateway.call("POST", "/api/progress", body, Idempotency_Key=str(uuid4()), **headers)[0].status
            )
        return statuses

    def has_updates(server: Server) -> bool:
        return any('method="POST"' in line and "_count" in line for line in server.metrics())

    quiet: dict[str, Any] = {"PROGRESS_LOG_LEVEL": "warning", "PROGRESS_DRAIN_SECONDS": "1"}
    with ExitStack() as stack:
        servers = [stack.enter_context(gunicorn(database_url, **quiet)) for _ in range(2)]
        gateway = stack.enter_context(nginx(tmp_path, servers[0].port, servers[1].port))
        clients = stack.enter_context(ThreadPoolExecutor(len(LEARNERS)))
        stack.callback(over.set)
        reports = {learner: clients.submit(report, gateway, learner) for learner in LEARNERS}
        for server in servers:
            wait_until(partial(has_updates, server))
            (os.killpg if end == signal.SIGKILL else os.kill)(server.process.pid, end)
            server.process.wait(PATIENCE_SECONDS)
            wait_until(partial(is_free, server.port))  # workers that were killed too end a moment later
            started = stack.enter_context(gunicorn(database_url, port=server.port, **quiet))
            wait_until(partial(has_updates, started))
        over.set()
        sent = {learner: one.result(PATIENCE_SECONDS) for learner, one in reports.items()}

    for learner, statuses in sent.items():
        assert set(statuses) <= {200, 201}
        assert service().get(f"/api/progress/{learner}").get_json()["summary"]["timeSpentSeconds"] == len(statuses)

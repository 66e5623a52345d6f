"""Tokens as identity providers issue them: their keys, how these change, and where the role stands."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from flask_jwt_extended import decode_token

from progress_service import figures
from progress_service.config import ConfigurationError
from progress_service.web import auth, keys
from progress_service.web.keys import COOLDOWN, LARGEST_SET, LIFETIME, TIMEOUT
from tests.callers import KEY, bearing, handmade, token
from tests.conftest import application
from tests.waiting import PATIENCE_SECONDS, wait_until

MEMORY = "sqlite://"
ACCEPTED, UNAUTHORIZED, UNAVAILABLE = 422, 401, 503
"""How a request that says nothing ends: it is looked at, or its token is refused, or nobody knows the token's key."""

RSA, OTHER_RSA, SMALL_RSA = (rsa.generate_private_key(65537, bits) for bits in (2048, 2048, 1024))
P256, P384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
ED25519, ED448 = ed25519.Ed25519PrivateKey.generate(), ed448.Ed448PrivateKey.generate()
KEYS: list[tuple[str, Any]] = [
    ("RS256", RSA),
    ("RS512", RSA),
    ("PS256", RSA),
    ("ES256", P256),
    ("ES384", P384),
    ("EdDSA", ED25519),
    ("EdDSA", ED448),
]

LASTING = {"sub": "lms", "role": "service", "exp": 9_999_999_999}

Answer = Callable[[BaseHTTPRequestHandler], object]


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def jwk(kid: Any, key: Any = RSA, algorithm: str = "RS256", **members: Any) -> dict[str, Any]:
    """Return a key as providers publish it; members that are None are left out."""
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    members = public | {"kid": kid, "use": "sig", "alg": algorithm} | members
    return {name: value for name, value in members.items() if value is not None}


def signed(key: Any, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    claims = {"sub": "lms", "role": "service", "exp": datetime.now(UTC) + timedelta(hours=1)} | claims
    return jwt.encode(claims, key, algorithm, headers)


def of(kid: str, key: Any = RSA, algorithm: str = "RS256", **headers: Any) -> str:
    """Return a token that names its key."""
    return signed(key, algorithm, {"kid": kid, **headers})


def status(app: Flask, token: str) -> int:
    return bearing(app, f"Bearer {token}").post("/api/progress", json={}).status_code


class Provider:
    """An identity provider on this host, which counts how often it is asked for its keys."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Answer = respond({"keys": []})
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                provider.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def publish(self, *published: Any) -> None:
        self.answer = respond({"keys": published})


def respond(document: Any, status: int = 200, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


class Clock:
    """The time that the service reads; it stands still unless it is told to advance."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A provider that publishes one key, named 1."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    provider = Provider()
    provider.publish(jwk("1"))
    thread = Thread(target=provider.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield provider
    provider.server.shutdown()
    provider.server.server_close()
    thread.join()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(keys, "monotonic", clock)
    return clock


@contextmanager
def trusting(url: str, algorithm: str = "RS256", **settings: Any) -> Iterator[Flask]:
    """Make an application that trusts the keys at a URL."""
    with application(MEMORY, JWT_SECRET_KEY=None, JWT_JWKS_URL=url, JWT_ALGORITHM=algorithm, **settings) as app:
        yield app


@pytest.fixture
def app(clock: Clock, provider: Provider) -> Iterator[Flask]:
    """An application that trusts the provider."""
    with trusting(provider.url) as app:
        yield app


class TestPreviousSecret:
    """A secret that is being replaced: both verify, and the new one signs."""

    NEW = "the key that signs from now on, long enough for HS256"

    @pytest.fixture
    def app(self) -> Iterator[Flask]:
        with application(MEMORY, JWT_SECRET_KEY=self.NEW, JWT_PREVIOUS_SECRET_KEY=KEY) as app:
            yield app

    def test_tokens_of_both_are_accepted_at_each_use(self, app: Flask) -> None:
        tokens = [handmade(LASTING, key=key) for key in (KEY, self.NEW)]
        assert [status(app, encoded) for encoded in tokens * 2] == [ACCEPTED] * 4
        assert len(app.extensions["verified-tokens"]) == 2
        assert status(app, handmade(LASTING, {"kid": "of another service"})) == ACCEPTED

    def test_whatever_else_keeps_a_token_out_does_so_with_both(self, app: Flask) -> None:
        for key in (KEY, self.NEW):
            good = handmade(LASTING, key=key)
            assert status(app, good[:-3] + "AAA") == UNAUTHORIZED
            assert status(app, good[1:]) == UNAUTHORIZED
            expired = bearing(app, f"Bearer {handmade(LASTING | {'exp': 1}, key=key)}").post("/api/progress", json={})
            assert (expired.status_code, expired.get_json()["detail"]) == (UNAUTHORIZED, "The token has expired.")
            assert status(app, handmade(LASTING, {"alg": "HS512"}, key)) == UNAUTHORIZED
            assert status(app, handmade(LASTING, {"alg": "none"}, key)) == UNAUTHORIZED
        assert status(app, handmade(LASTING, key="a key of somebody else, long enough for HS256")) == UNAUTHORIZED

    def test_the_new_one_signs(self, app: Flask) -> None:
        printed = app.test_cli_runner().invoke(args=["token", "--sub", "sam", "--role", "student"]).output.strip()
        assert jwt.decode(printed, self.NEW, ["HS256"])["sub"] == "sam"

    def test_tokens_of_the_old_one_are_refused_when_it_is_gone(self) -> None:
        with application(MEMORY, JWT_SECRET_KEY=self.NEW) as app:
            assert status(app, handmade(LASTING)) == UNAUTHORIZED

    @pytest.mark.parametrize("previous", ["x" * 31, pem(RSA), "true"])
    def test_one_that_cannot_verify_is_refused_at_the_start(self, previous: str) -> None:
        named = pytest.raises(ConfigurationError, match="PROGRESS_JWT_PREVIOUS_SECRET_KEY is no key for HS256")
        with named, application(MEMORY, JWT_PREVIOUS_SECRET_KEY=previous):
            pass

    def test_without_one_that_signs_it_is_refused(self) -> None:
        settings = {"JWT_SECRET_KEY": None, "JWT_PUBLIC_KEY": pem(P256), "JWT_ALGORITHM": "ES256"}
        named = pytest.raises(ConfigurationError, match="PROGRESS_JWT_PREVIOUS_SECRET_KEY needs")
        with named, application(MEMORY, JWT_PREVIOUS_SECRET_KEY=KEY, **settings):
            pass


class TestPublicKey:
    @pytest.mark.parametrize(("algorithm", "key"), KEYS)
    def test_its_tokens_are_accepted_whatever_key_they_name(self, algorithm: str, key: Any, database_url: str) -> None:
        settings = {"JWT_SECRET_KEY": None, "JWT_PUBLIC_KEY": pem(key), "JWT_ALGORITHM": algorithm}
        with application(database_url, **settings) as app:
            for headers in (None, {"kid": "unheard-of"}, {"jku": "http://127.0.0.1:1/keys"}):
                caller = bearing(app, f"Bearer {signed(key, algorithm, headers, sub='sam', role='student')}")
                assert caller.get("/api/progress/me").get_json()["userId"] == "sam"

            assert status(app, handmade(LASTING, key=pem(key))) == UNAUTHORIZED
            for other, stranger in KEYS:
                if (other, stranger) != (algorithm, key):
                    assert status(app, signed(stranger, other)) == UNAUTHORIZED


class TestProvider:
    @pytest.mark.parametrize(("algorithm", "key"), KEYS)
    def test_tokens_of_a_published_key_are_accepted(
        self, algorithm: str, key: Any, database_url: str, provider: Provider
    ) -> None:
        provider.publish(jwk("rsa", OTHER_RSA), jwk("mine", key, algorithm), jwk("ec", P256, "ES256"))
        settings = {"JWT_SECRET_KEY": None, "JWT_JWKS_URL": provider.url, "JWT_ALGORITHM": algorithm}
        with application(database_url, **settings) as app:
            credentials = signed(key, algorithm, {"kid": "mine"}, sub="sam", role="student")
            assert bearing(app, f"Bearer {credentials}").get("/api/progress/me").get_json()["userId"] == "sam"
        assert provider.asked == 1

    def test_the_algorithm_is_rs256_unless_another_is_named(self, provider: Provider) -> None:
        with application(MEMORY, JWT_SECRET_KEY=None, JWT_JWKS_URL=provider.url) as app:
            assert status(app, of("1")) == ACCEPTED
            assert status(app, of("1", algorithm="RS384")) == UNAUTHORIZED

    def test_a_key_may_leave_out_its_use_and_algorithm(self, app: Flask, provider: Provider) -> None:
        provider.publish(jwk("1", use=None, alg=None))

        assert status(app, of("1")) == ACCEPTED

    @pytest.mark.parametrize(
        ("published", "bad"),
        [
            (
                {"kty": "oct", "k": "a2V5" * 12, "kid": "2"},
                handmade({"sub": "lms", "exp": 9e9}, {"kid": "2"}, b"key" * 12),
            ),
            (jwk("2", OTHER_RSA, use="enc"), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, alg="RS384"), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, alg="RSA-OAEP"), of("2", OTHER_RSA)),
            (jwk("2", P256, "ES256", alg="RS256"), of("2", P256, "ES256")),
            (jwk("2", P256, "ES256", alg=None), of("2", P256, "ES256")),
            (jwk(None, OTHER_RSA), signed(OTHER_RSA)),
            (jwk(2, OTHER_RSA), of("2", OTHER_RSA)),
            (jwk(["2"], OTHER_RSA), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, n=None), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, n=5), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, n="Ag"), of("2", OTHER_RSA)),
            (jwk("2", OTHER_RSA, kty="DSA"), of("2", OTHER_RSA)),
            (jwt.get_algorithm_by_name("RS256").to_jwk(OTHER_RSA, as_dict=True) | {"kid": "2"}, of("2", OTHER_RSA)),
            (jwk("2", SMALL_RSA), of("2", OTHER_RSA)),
            ("2", of("2", OTHER_RSA)),
            (None, of("2", OTHER_RSA)),
        ],
    )
    def test_a_key_that_is_not_for_verifying_rs256_is_not_used(
        self, published: Any, bad: str, app: Flask, provider: Provider
    ) -> None:
        provider.publish(published, jwk("1"))

        assert status(app, bad) == UNAUTHORIZED
        assert status(app, of("1")) == ACCEPTED

    @pytest.mark.parametrize("order", [(0, 1, 0), (1, 0), (0, 1)])
    def test_an_id_of_several_keys_names_none_of_them_and_is_logged(
        self, order: tuple[int, ...], caplog: pytest.LogCaptureFixture, app: Flask, provider: Provider
    ) -> None:
        pair = RSA, OTHER_RSA
        provider.publish(jwk("3"), *(jwk("2", pair[place]) for place in order), jwk("1"))
        app.logger.propagate = True

        assert [status(app, of("2", key)) for key in pair] == [UNAUTHORIZED] * 2
        assert [status(app, of(key_id)) for key_id in ("1", "3")] == [ACCEPTED] * 2
        assert "several keys for each of ['2']" in caplog.text

    def test_a_key_may_be_published_twice_and_beside_one_for_something_else(
        self, app: Flask, provider: Provider
    ) -> None:
        others = jwk("1", OTHER_RSA, use="enc"), jwk("1", P256, "ES256"), jwk("1", alg="RS512")
        provider.publish(jwk("1", alg=None), *others, jwk("1"))

        assert status(app, of("1")) == ACCEPTED

    def test_a_token_of_no_published_key_is_unauthorized(self, app: Flask, provider: Provider) -> None:
        own = {"jku": provider.url, "x5u": provider.url, "jwk": jwk("1", OTHER_RSA)}
        bad = {
            "another key": of("1", OTHER_RSA),
            "keys that it brings": of("1", OTHER_RSA, "RS256", **own),
            "another algorithm": of("1", algorithm="RS512"),
            "the public key as a secret": handmade(LASTING, {"kid": "1"}, pem(RSA)),
            "no algorithm": jwt.encode(LASTING, "", "none", {"kid": "1"}),
            "no key id": signed(RSA),
            "a service's own secret": token("lms", "service"),
            "a long key id": of("1" * 100_000),
            "a path": of("../../../etc/passwd"),
            "nothing": of(""),
            "NUL": of("1\0"),
            "two lines": of("1\n2"),
        }
        bad |= {f"key id {kid}": handmade(LASTING, {"kid": kid}) for kid in (None, 1, True, ["1"], {"1": 1})}

        assert {why: status(app, token) for why, token in bad.items()} == dict.fromkeys(bad, UNAUTHORIZED)
        assert status(app, of("1", jku="http://127.0.0.1:1/", x5u=7, jwk=jwk("1", OTHER_RSA))) == ACCEPTED
        assert provider.asked == 1

    def test_the_secret_of_flask_itself_is_no_key_of_tokens(self, provider: Provider) -> None:
        with trusting(provider.url, SECRET_KEY=KEY) as app:
            assert status(app, token("lms", "service")) == UNAUTHORIZED


class TestRotation:
    def test_the_keys_are_fetched_once_in_a_lifetime(self, app: Flask, clock: Clock, provider: Provider) -> None:
        for _ in range(3):
            assert status(app, of("1")) == ACCEPTED
        clock.advance(LIFETIME - 1)
        assert status(app, of("1")) == ACCEPTED
        assert provider.asked == 1

        clock.advance(1)
        assert [status(app, of("1")) for _ in range(3)] == [ACCEPTED] * 3
        assert provider.asked == 2

    def test_a_withdrawn_key_is_refused_after_a_lifetime(self, app: Flask, clock: Clock, provider: Provider) -> None:
        assert status(app, of("1")) == ACCEPTED
        provider.publish(jwk("2", OTHER_RSA))
        clock.advance(LIFETIME)

        assert status(app, of("1")) == UNAUTHORIZED
        assert status(app, of("2", OTHER_RSA)) == ACCEPTED
        assert provider.asked == 2

    def test_a_new_key_is_fetched_when_a_token_names_it(self, app: Flask, clock: Clock, provider: Provider) -> None:
        assert status(app, of("1")) == ACCEPTED
        provider.publish(jwk("1"), jwk("2", OTHER_RSA))
        assert status(app, of("2", OTHER_RSA)) == UNAUTHORIZED

        clock.advance(COOLDOWN)
        assert status(app, of("2", OTHER_RSA)) == ACCEPTED
        assert status(app, of("1")) == ACCEPTED
        assert provider.asked == 2

    def test_unknown_keys_have_the_provider_asked_once_in_a_while(
        self, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        for asked in (1, 2, 3):
            assert {status(app, of(f"{asked}-{number}")) for number in range(20)} == {UNAUTHORIZED}
            assert provider.asked == asked
            clock.advance(COOLDOWN)
        assert status(app, of("1")) == ACCEPTED
        assert provider.asked == 3

    def test_a_set_without_a_usable_key_leaves_no_key_and_is_logged(
        self, caplog: pytest.LogCaptureFixture, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        assert status(app, of("1")) == ACCEPTED
        provider.publish(jwk("1", P256, "ES256"))
        clock.advance(LIFETIME)

        assert status(app, of("1")) == UNAUTHORIZED
        assert "WARNING" in next(line for line in caplog.text.splitlines() if "has 0 keys for RS256" in line)


def hang_up(_: BaseHTTPRequestHandler) -> None:
    """Answer nothing at all."""


def crawl(clock: Clock) -> Answer:
    """Answer with a key, but take longer than anybody waits."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        clock.advance(TIMEOUT + 1)
        respond({"keys": [jwk("1")]})(handler)

    return answer


TOO_MUCH = json.dumps({"keys": [jwk("1")], "more": "." * LARGEST_SET}).encode()
GOOD = {"keys": [jwk("1"), jwk("2", OTHER_RSA)]}
DOWN: dict[str, Callable[[Clock, Provider], Answer]] = {
    "an error": lambda *_: respond(GOOD, 500),
    "not found": lambda *_: respond(GOOD, 404),
    "accepted": lambda *_: respond(GOOD, 202),
    "a redirect": lambda _, provider: respond(GOOD, 302, Location=provider.url + "/elsewhere"),
    "a redirect to a file": lambda *_: respond(GOOD, 301, Location="file:///etc/passwd"),
    "nothing": lambda *_: hang_up,
    "an empty answer": lambda *_: respond(b""),
    "half an answer": lambda *_: respond(json.dumps(GOOD).encode()[:-1]),
    "less than announced": lambda *_: respond(b"{", 200, **{"Content-Length": "1000"}),
    "no number of bytes": lambda *_: respond(b"{", 200, **{"Content-Length": "many"}),
    "no HTML": lambda *_: respond(b"<!DOCTYPE html>"),
    "no UTF-8": lambda *_: respond(b'{"keys": ["\xff"]}'),
    "a deep answer": lambda *_: respond(b"[" * 10_000),
    "a list": lambda *_: respond([GOOD]),
    "no keys": lambda *_: respond({}),
    "keys that are no list": lambda *_: respond({"keys": {"1": jwk("1")}}),
    "too much": lambda *_: respond(TOO_MUCH),
    "too slow": lambda clock, _: crawl(clock),
}


class TestProviderDown:
    def test_the_metrics_tell_of_every_try_and_of_the_last_that_succeeded(
        self, app: Flask, clock: Clock, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def told() -> dict[str, float]:
            lines = bearing(app, "").get("/metrics").text.splitlines()
            pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("progress_token_key"))
            return {name.removeprefix("progress_token_key"): float(value) for name, value in pairs}

        monkeypatch.setattr(figures, "_own", figures.Figures())
        assert status(app, of("1")) == ACCEPTED
        first = told()
        assert first.pop("s_fetched_timestamp_seconds") == pytest.approx(time.time(), abs=60)
        assert first == {'_fetches_total{outcome="succeeded"}': 1}
        provider.answer = respond({}, 500)
        clock.advance(LIFETIME)
        assert status(app, of("1")) == ACCEPTED
        assert told().items() > {**first, '_fetches_total{outcome="failed"}': 1}.items()

    @pytest.mark.parametrize("answer", DOWN.values(), ids=DOWN)
    def test_the_last_keys_are_used_meanwhile_and_the_provider_is_left_in_peace(
        self, answer: Callable[[Clock, Provider], Answer], app: Flask, clock: Clock, provider: Provider
    ) -> None:
        assert status(app, of("1")) == ACCEPTED
        provider.answer = answer(clock, provider)
        clock.advance(100 * LIFETIME)
        for asked in (2, 3):
            assert [status(app, of(kid)) for kid in ("1", "1", "2")] == [ACCEPTED, ACCEPTED, UNAUTHORIZED]
            assert provider.asked == asked
            clock.advance(COOLDOWN)

        provider.publish(jwk("2", OTHER_RSA))
        assert [status(app, of(kid, key)) for kid, key in (("1", RSA), ("2", OTHER_RSA))] == [UNAUTHORIZED, ACCEPTED]
        assert provider.asked == 4

    @pytest.mark.parametrize("answer", DOWN.values(), ids=DOWN)
    def test_without_any_key_the_service_is_unavailable_and_asks_less_and_less_often(
        self, answer: Callable[[Clock, Provider], Answer], app: Flask, clock: Clock, provider: Provider
    ) -> None:
        provider.answer = answer(clock, provider)
        for asked, pause in enumerate((1, 2, 4, 8, 16, 30, 30), 1):
            for _ in range(3):
                response = bearing(app, f"Bearer {of('1')}").post("/api/progress")
                assert response.status_code == UNAVAILABLE
                assert response.get_json()["type"].endswith(":unavailable")
                assert response.headers["Retry-After"] == str(pause)
            assert status(app, "garbage") == UNAUTHORIZED
            assert status(app, signed(RSA)) == UNAUTHORIZED
            assert provider.asked == asked
            clock.advance(pause)

        provider.publish(jwk("1"))
        assert status(app, of("1")) == ACCEPTED

    def test_a_provider_that_cannot_be_reached_is_down_too(
        self, provider: Provider, capsys: pytest.CaptureFixture[str]
    ) -> None:
        port = provider.server.server_port
        for url in (f"https://127.0.0.1:{port}/keys", "http://127.0.0.1:1/keys", "https://keys.invalid:port/"):
            with trusting(url) as app:
                assert status(app, of("1")) == UNAVAILABLE
        assert capsys.readouterr().err.count("keys of the identity provider unavailable") == 3
        assert provider.asked == 0

    def test_one_that_never_answers_holds_up_one_request(
        self, app: Flask, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keys, "TIMEOUT", 0.1)
        released = Event()
        provider.answer = lambda _: released.wait(PATIENCE_SECONDS)
        try:
            assert [status(app, of("1")) for _ in range(3)] == [UNAVAILABLE] * 3
            wait_until(lambda: provider.asked)
            assert provider.asked == 1
        finally:
            released.set()


class TestRemembered:
    """A token that was accepted is verified once; what could refuse it is looked at each time."""

    NOW = 2_000_000_000
    LEEWAY = 10

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        """The time by which tokens begin and expire."""
        clock = Clock()
        clock.now = self.NOW

        class Now(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.fromtimestamp(clock(), tz)

        monkeypatch.setattr(auth, "time", clock)
        monkeypatch.setattr(jwt.api_jwt, "datetime", Now)
        return clock

    @pytest.fixture
    def verified(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The tokens that were verified."""
        verified: list[str] = []

        def verify(encoded: str) -> Any:
            verified.append(encoded)
            return decode_token(encoded)

        monkeypatch.setattr(auth, "decode_token", verify)
        return verified

    def test_each_token_is_verified_once_and_stands_for_its_own_caller(
        self, database_url: str, verified: list[str]
    ) -> None:
        tokens = {sub: handmade(LASTING | {"sub": sub, "role": "student"}) for sub in ("sam", "kim")}
        with application(database_url) as app:
            for _ in range(3):
                for sub, encoded in tokens.items():
                    assert bearing(app, f"Bearer {encoded}").get("/api/progress/me").get_json()["userId"] == sub
        assert verified == list(tokens.values())

    def test_a_refused_token_is_verified_each_time(self, verified: list[str]) -> None:
        good = handmade(LASTING)
        refused = {
            good[:-2] + "AA": 401,
            good[1:]: 401,
            handmade(LASTING, key="another key, long enough for HS256 too"): 401,
            handmade(LASTING | {"exp": 1}): 401,
            handmade(LASTING | {"sub": 7}): 401,
            handmade(LASTING | {"sub": "me"}): 403,
            handmade(LASTING | {"role": "nobody"}): 403,
        }
        with application(MEMORY) as app:
            assert status(app, good) == ACCEPTED
            for _ in range(2):
                assert {encoded: status(app, encoded) for encoded in refused} == refused
            assert len(app.extensions["verified-tokens"]) == 1
        assert verified == [good, *refused, *refused]

    @pytest.mark.parametrize(
        ("claims", "first", "last"),
        [
            ({"exp": NOW + 60}, -(10**9), 60 + LEEWAY - 1),
            ({"exp": NOW + 60.9}, -(10**9), 60 + LEEWAY - 1),
            ({"exp": NOW + 60, "nbf": NOW - 60}, -60 - LEEWAY, 60 + LEEWAY - 1),
            ({"exp": NOW + 60, "iat": NOW - 60}, -60 - LEEWAY, 60 + LEEWAY - 1),
            ({"exp": NOW + 60, "iat": NOW - 90, "nbf": NOW - 60}, -60 - LEEWAY, 60 + LEEWAY - 1),
            ({"exp": NOW + 60, "iat": NOW - 60, "nbf": NOW - 90}, -60 - LEEWAY, 60 + LEEWAY - 1),
        ],
    )
    def test_it_is_refused_as_soon_as_it_has_expired_and_while_it_is_not_valid_yet(
        self, claims: dict[str, Any], first: int, last: int, clock: Clock, verified: list[str]
    ) -> None:
        encoded = handmade(LASTING | claims)
        with application(MEMORY, JWT_DECODE_LEEWAY=self.LEEWAY) as app:
            for seconds in (0, first, last):
                clock.now = self.NOW + seconds
                assert status(app, encoded) == ACCEPTED
            assert verified == [encoded]

            for seconds in (last + 1, 10**9) + ((first - 1,) if first > -(10**9) else ()):
                clock.now = self.NOW + seconds
                assert status(app, encoded) == UNAUTHORIZED
            clock.now = self.NOW
            assert status(app, encoded) == ACCEPTED

    def test_another_issuer_and_another_audience_remain_refused(self) -> None:
        encoded = handmade(LASTING | {"iss": "https://id.example", "aud": "school"})
        with (
            application(MEMORY, JWT_DECODE_ISSUER="https://id.example", JWT_DECODE_AUDIENCE="school") as app,
            application(MEMORY, JWT_DECODE_ISSUER="https://other.example") as other_issuer,
            application(MEMORY, JWT_DECODE_AUDIENCE="shop") as other_audience,
        ):
            for _ in range(2):
                answered = [status(one, encoded) for one in (app, other_issuer, other_audience)]
                assert answered == [ACCEPTED, UNAUTHORIZED, UNAUTHORIZED]

    def test_so_many_are_remembered_and_no_more_whichever_threads_send_them(
        self, monkeypatch: pytest.MonkeyPatch, database_url: str, verified: list[str]
    ) -> None:
        most, threads = 5, 4
        monkeypatch.setattr(auth, "MOST_VERIFIED", most)
        tokens = {f"s{number}": handmade(LASTING | {"sub": f"s{number}", "role": "student"}) for number in range(20)}
        with application(database_url) as app, ThreadPoolExecutor(threads) as pool:

            def who(sub: str) -> tuple[str, int]:
                answer = bearing(app, f"Bearer {tokens[sub]}").get("/api/progress/me").get_json()
                return answer["userId"], len(app.extensions["verified-tokens"])

            answered = list(pool.map(who, 3 * list(tokens)))
        assert [sub for sub, _ in answered] == 3 * list(tokens)
        assert 0 < max(count for _, count in answered) < most + threads
        assert set(verified) == set(tokens.values())


class TestRememberedKeys:
    """A change of the provider's keys has remembered tokens verified again."""

    def test_a_withdrawn_key_is_refused_as_soon_as_the_keys_are_fetched(
        self, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        first, second = of("1"), of("2", OTHER_RSA)
        assert [status(app, first) for _ in range(3)] == [ACCEPTED] * 3
        provider.publish(jwk("2", OTHER_RSA))
        clock.advance(COOLDOWN)
        assert status(app, first) == ACCEPTED
        assert provider.asked == 1

        assert status(app, second) == ACCEPTED
        assert status(app, first) == UNAUTHORIZED
        assert provider.asked == 2

    def test_another_key_under_the_same_id_replaces_the_first(
        self, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        first, second = of("1"), of("1", OTHER_RSA)
        for expected, published in (
            ([ACCEPTED, UNAUTHORIZED], RSA),
            ([UNAUTHORIZED, ACCEPTED], OTHER_RSA),
            ([ACCEPTED, UNAUTHORIZED], RSA),
        ):
            provider.publish(jwk("1", published))
            clock.advance(LIFETIME)
            assert [[status(app, one) for one in (first, second)] for _ in range(2)] == [expected] * 2

    def test_a_key_that_is_published_still_is_fetched_once_in_a_lifetime(
        self, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        encoded = of("1")
        for asked in (1, 2, 3):
            assert [status(app, encoded) for _ in range(3)] == [ACCEPTED] * 3
            assert provider.asked == asked
            clock.advance(LIFETIME)

    def test_tokens_are_accepted_while_the_provider_is_down_until_it_withdraws_their_key(
        self, app: Flask, clock: Clock, provider: Provider
    ) -> None:
        encoded = of("1")
        assert [status(app, encoded) for _ in range(2)] == [ACCEPTED] * 2
        provider.answer = hang_up
        for _ in range(2):
            clock.advance(LIFETIME)
            assert [status(app, encoded) for _ in range(2)] == [ACCEPTED] * 2

        provider.publish(jwk("2", OTHER_RSA))
        clock.advance(LIFETIME)
        assert status(app, encoded) == UNAUTHORIZED


class TestAtOnce:
    """The provider answers when it is told to."""

    @pytest.fixture(autouse=True)
    def patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keys, "TIMEOUT", PATIENCE_SECONDS)

    @pytest.fixture
    def asked(self) -> Event:
        return Event()

    @pytest.fixture
    def told(self) -> Iterator[Event]:
        told = Event()
        yield told
        told.set()

    @pytest.mark.parametrize("awaited", ["1", "2"])
    def test_who_has_a_key_does_not_wait_for_those_who_fetch(
        self, awaited: str, app: Flask, clock: Clock, provider: Provider, asked: Event, told: Event
    ) -> None:
        assert status(app, of("1")) == ACCEPTED
        clock.advance(LIFETIME if awaited == "1" else COOLDOWN)
        provider.answer = in_time(asked, told)
        with ThreadPoolExecutor() as pool:
            fetching = pool.submit(status, app, of(awaited))
            assert asked.wait(PATIENCE_SECONDS)

            assert [status(app, of("1")) for _ in range(3)] == [ACCEPTED] * 3
            assert not fetching.done()
            told.set()
            assert fetching.result() == ACCEPTED
        assert provider.asked == 2

    def test_who_has_no_key_waits_for_the_one_who_fetches(
        self, app: Flask, provider: Provider, asked: Event, told: Event
    ) -> None:
        provider.answer = in_time(asked, told)
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(status, app, of("1")) for _ in range(8)]
            assert asked.wait(PATIENCE_SECONDS)
            told.set()
            assert [request.result() for request in waiting] == [ACCEPTED] * 8
        assert provider.asked == 1


def in_time(asked: Event, told: Event) -> Answer:
    """Answer with two keys once that is told."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        assert told.wait(PATIENCE_SECONDS)
        respond({"keys": [jwk("1"), jwk("2")]})(handler)

    return answer


ROLES = [
    ("role", {"role": "student"}, "student"),
    ("role", {"role": ["student"]}, "student"),
    ("role", {"role": ["student", "instructor"]}, "instructor"),
    ("role", {"role": ["service", "instructor", "student"]}, "service"),
    ("role", {"role": ["admin", "service"]}, "admin"),
    ("role", {"role": ["offline_access", None, 7, ["admin"], {"admin": 1}, "student"]}, "student"),
    ("role", {"role": "student admin"}, "admin"),
    ("role", {"role": "openid  instructor student "}, "instructor"),
    ("role", {"role": ["student admin"]}, None),
    ("role", {"role": "student\tadmin"}, None),
    ("role", {"role": ["auditor", "instructor"]}, "auditor"),
    ("role", {"role": "auditor service"}, "service"),
    ("role", {"role": "admin,student"}, None),
    ("role", {"role": ["offline_access"]}, None),
    ("role", {"roles": ["admin"]}, None),
    ("roles", {"roles": ["admin"], "role": "student"}, "admin"),
    ("roles", {"role": "admin"}, None),
    ("https://example.org/role", {"https://example.org/role": "admin"}, "admin"),
    ("https://example.org/role", {"https://example": {"org/role": ["student"]}}, "student"),
    ("realm_access.roles", {"realm_access": {"roles": ["offline_access", "admin"]}}, "admin"),
    ("realm_access.roles", {"realm_access.roles": "student", "realm_access": {"roles": ["admin"]}}, "student"),
    ("https://example.org/role", {"https://example": {"org/role": "student"}, "https://example.org/role": None}, None),
    ("resource_access.my.app.roles", {"resource_access": {"my.app": {"roles": ["admin"]}}}, "admin"),
    ("resource_access.my.app.roles", {"resource_access": {"my": {}, "my.app": {"roles": ["student"]}}}, "student"),
    ("resource_access.my.app.roles", {"resource_access": {"my.app": {}, "my": {"app.roles": "admin"}}}, "admin"),
    ("resource_access.my.app.roles", {"resource_access.my": {"app.roles": "student"}}, "student"),
    ("resource_access.my.app.roles", {"resource_access": {"my": {"app": {"roles": ["admin"]}}}}, "admin"),
    ("resource_access.my.app.roles", {"resource_access": {"my.app": ["roles"], "my": "app.roles"}}, None),
    ("realm_access.roles", {"realm_access": ["roles", "admin"]}, None),
    ("realm_access.roles", {"realm_access": "roles"}, None),
    ("realm_access.roles", {"realm_access": {"roles": {"admin": True}}}, None),
    ("realm_access.roles", {"realm_access": None}, None),
    ("realm_access.roles", {"role": "admin"}, None),
    (".", {"role": "admin"}, None),
]
STATUSES = {
    # An update, the catalog's modules and a module's publication, all of them wrong in the same way for everybody.
    None: [403, 403, 403],
    "auditor": [403, 400, 403],
    "student": [422, 403, 403],
    "instructor": [422, 400, 403],
    "service": [422, 400, 422],
    "admin": [422, 400, 422],
}


@pytest.mark.parametrize(("claim", "given", "role"), ROLES)
def test_the_role_is_the_strongest_that_the_claim_gives(
    claim: str, given: dict[str, Any], role: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_ROLE_CLAIM", claim)
    exp = datetime.now(UTC) + timedelta(hours=1)
    with application(MEMORY) as app:
        caller = bearing(app, f"Bearer {jwt.encode({'sub': 'kim', 'exp': exp} | given, KEY, 'HS256')}")
        responses = [
            caller.post("/api/progress", json={}),
            caller.get("/api/catalog/modules?unknown=1"),
            caller.put("/api/catalog/modules/algebra", json={}),
        ]

    assert [response.status_code for response in responses] == STATUSES[role]
    faults = responses[0].get_json().get("errors", [])
    # A service is nobody's learner: it has to say whose an update is.
    assert any(fault["pointer"] == "/userId" for fault in faults) == (role == "service")


NAMES = {
    "progress-api/service": "service",
    "urn:example:support": "auditor",
    "Course Teacher": "instructor",
    "teacher": "instructor",
    "admin": "student",
}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("progress-api/service", 400),
        (["urn:example:support", "student"], 400),
        ("openid progress-api/service", 400),
        ("Course Teacher", 400),
        (["Course Teacher"], 400),
        (["teacher", "x"], 400),
        ("service", 400),
        ("admin", 403),
        (["admin", "instructor"], 400),
        ("Course", 403),
        ("Service", 403),
    ],
)
def test_a_providers_names_of_roles_are_mapped_and_others_stand_for_themselves(given: Any, status: int) -> None:
    with application(MEMORY, ROLE_NAMES=json.dumps(NAMES)) as app:
        caller = bearing(app, f"Bearer {jwt.encode(LASTING | {'role': given}, KEY, 'HS256')}")
        assert caller.get("/api/catalog/modules?unknown=1").status_code == status


USERS: list[tuple[str, dict[str, Any], int | str]] = [
    ("email", {"email": "kim@example.org"}, "kim@example.org"),
    ("email", {"email": "kim@example.org", "sub": "sam"}, "kim@example.org"),
    ("email", {"email": "kim@example.org", "sub": 7}, "kim@example.org"),
    ("email", {"email": "kim@example.org", "sub": "not an id"}, "kim@example.org"),
    ("email", {"sub": "sam"}, 401),
    ("email", {"email": None, "sub": "sam"}, 401),
    ("email", {"email": ["kim@example.org"], "sub": "sam"}, 401),
    ("email", {"email": 7, "sub": "sam"}, 401),
    ("email", {"email": "", "sub": "sam"}, 403),
    ("email", {"email": "me", "sub": "sam"}, 403),
    ("ext.user.id", {"ext": {"user.id": "kim"}}, "kim"),
    ("ext.user.id", {"ext.user": {"id": "kim"}}, "kim"),
    ("ext.user.id", {"ext": {"user": {}}}, 401),
    ("https://example.org/uid", {"https://example.org/uid": "kim"}, "kim"),
    ("sub", {"sub": "sam", "email": "kim"}, "sam"),
]


@pytest.mark.parametrize(("claim", "given", "expected"), USERS)
def test_the_caller_is_who_the_claim_that_is_configured_names(
    claim: str, given: dict[str, Any], expected: int | str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_USER_CLAIM", claim)
    claims = {"role": "student", "exp": LASTING["exp"]} | given
    with application(database_url) as app:
        response = bearing(app, f"Bearer {handmade(claims)}").get("/api/progress/me")

    assert expected in (response.status_code, response.get_json().get("userId"))
    assert ("WWW-Authenticate" in response.headers) == (response.status_code == 401)

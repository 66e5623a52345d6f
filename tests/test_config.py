"""Settings: what the environment may say, what it means, and what the service refuses to start with."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from traceback import format_exception
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from flask import Flask

from progress_service import create_app
from progress_service.config import DEFAULTS, FROM_FILES, ConfigurationError, Whole
from progress_service.store.database import db
from tests.callers import KEY, WEBHOOK_KEY, Caller, bearing, handmade
from tests.conftest import Publish, application

SECRET, URI = "PROGRESS_JWT_SECRET_KEY", "PROGRESS_SQLALCHEMY_DATABASE_URI"
REPLICA = "PROGRESS_SQLALCHEMY_REPLICA_URI"
PUBLIC, ALGORITHM, JWKS = "PROGRESS_JWT_PUBLIC_KEY", "PROGRESS_JWT_ALGORITHM", "PROGRESS_JWT_JWKS_URL"
ISSUER, AUDIENCE = "PROGRESS_JWT_DECODE_ISSUER", "PROGRESS_JWT_DECODE_AUDIENCE"
PREVIOUS = "PROGRESS_JWT_PREVIOUS_SECRET_KEY"
WEBHOOK = "PROGRESS_WEBHOOK_KEY"
MEMORY = "sqlite://"
DIGITS = "1234567890" * 4
PROVIDER = "https://id.example/keys"

PRIVATE_KEYS: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}


def public_pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def private_pem(key: Any, password: bytes = b"") -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    return text.decode()


PUBLIC_KEYS = {algorithm: public_pem(key) for algorithm, key in PRIVATE_KEYS.items()}


@contextmanager
def service(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Flask]:
    """Start the service with these settings, all from the environment, on a database in memory."""
    for name, value in ({URI: MEMORY} | environment).items():
        monkeypatch.setenv(name, value)
    app = create_app()
    try:
        yield app
    finally:
        with app.app_context():
            db.engine.dispose()


def claims(**others: Any) -> dict[str, Any]:
    return {"sub": "lms", "role": "service", "exp": datetime.now(UTC) + timedelta(hours=1), **others}


def verifies(app: Flask, token: str) -> bool:
    """Tell whether the service takes a token: it then looks at the request, and asks for a body."""
    response = bearing(app, f"Bearer {token}").post("/api/progress", json={})
    assert response.status_code in {401, 422}
    return bool(response.status_code != 401)


@pytest.mark.parametrize("environment", [{}, {SECRET: ""}, {PUBLIC: ""}, {ALGORITHM: "HS256"}, {ALGORITHM: "RS256"}])
def test_without_a_key_the_service_refuses_to_start_and_says_what_to_give(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as refusal, service(monkeypatch, **environment):
        pass

    assert all(name in str(refusal.value) for name in (SECRET, PUBLIC, JWKS, ALGORITHM))


@pytest.mark.parametrize("others", [{SECRET: KEY}, {PUBLIC: "key"}, {SECRET: KEY, PUBLIC: "key"}])
def test_with_several_keys_the_service_refuses_to_start(
    others: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 1 + len(others)
    refusal = pytest.raises(ConfigurationError, match=f"one key, not {number}")
    with refusal, service(monkeypatch, **{JWKS: PROVIDER}, **others):
        pass


@pytest.mark.parametrize("secret", ["x", "short", "1234", "x" * 31])
def test_a_short_secret_is_refused_and_not_shown(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError) as refusal, service(monkeypatch, **{SECRET: secret}):
        pass

    assert SECRET in str(refusal.value)
    assert secret == "x" or secret not in str(refusal.value)


@pytest.mark.parametrize("secret", ["x" * 32, "é" * 16, DIGITS, "1e9" + "0" * 30, '"' + KEY + '"', f'["{KEY}"]'])
def test_a_secret_is_the_string_that_is_written(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with service(monkeypatch, **{SECRET: secret}) as app:
        assert verifies(app, jwt.encode(claims(), secret, "HS256"))
        assert not verifies(app, jwt.encode(claims(), secret + "0", "HS256"))
        assert not verifies(app, jwt.encode(claims(), KEY, "HS256"))


@pytest.mark.parametrize("algorithm", PUBLIC_KEYS)
def test_tokens_of_a_private_key_are_verified_with_its_public_key(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(monkeypatch, **{PUBLIC: PUBLIC_KEYS[algorithm], ALGORITHM: algorithm}) as app:
        assert verifies(app, jwt.encode(claims(), PRIVATE_KEYS[algorithm], algorithm))

        (other,) = set(PRIVATE_KEYS) - {algorithm}
        assert not verifies(app, jwt.encode(claims(), PRIVATE_KEYS[other], other))
        assert not verifies(app, jwt.encode(claims(), KEY, "HS256"))
        forged = claims(exp=(datetime.now(UTC) + timedelta(hours=1)).timestamp())
        assert not verifies(app, handmade(forged, key=PUBLIC_KEYS[algorithm]))
        assert not verifies(app, jwt.encode(claims(), "", "none"))


def test_a_token_of_another_private_key_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    with service(monkeypatch, **{PUBLIC: PUBLIC_KEYS["ES256"], ALGORITHM: "ES256"}) as app:
        assert not verifies(app, jwt.encode(claims(), stranger, "ES256"))


@pytest.mark.parametrize(
    "environment",
    [
        {SECRET: KEY, ALGORITHM: "RS256"},
        {PUBLIC: PUBLIC_KEYS["RS256"], ALGORITHM: "HS256"},
        {SECRET: KEY, ALGORITHM: "none"},
        {SECRET: KEY, ALGORITHM: "nonsense"},
        {PUBLIC: PUBLIC_KEYS["RS256"], ALGORITHM: "none"},
        {JWKS: PROVIDER, ALGORITHM: "HS256"},
        {JWKS: PROVIDER, ALGORITHM: "none"},
        {JWKS: PROVIDER, ALGORITHM: ""},
    ],
)
def test_an_algorithm_that_does_not_go_with_the_key_is_refused(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=f"{ALGORITHM} '"), service(monkeypatch, **environment):
        pass


RSA = PRIVATE_KEYS["RS256"]
UNFIT = {
    "nothing": ("RS256", "true"),
    "no key": ("RS256", "nonsense"),
    "half a key": ("RS256", PUBLIC_KEYS["RS256"][:200]),
    "a private key": ("RS256", private_pem(RSA)),
    "a private key for ES256": ("ES256", private_pem(PRIVATE_KEYS["ES256"])),
    "a private key for EdDSA": ("EdDSA", private_pem(ed25519.Ed25519PrivateKey.generate())),
    "an encrypted private key": ("RS256", private_pem(RSA, b"secret")),
    "a small key": ("RS256", public_pem(rsa.generate_private_key(65537, 1024))),
    "another curve": ("ES384", PUBLIC_KEYS["ES256"]),
    "a key that cannot sign": ("EdDSA", public_pem(x25519.X25519PrivateKey.generate())),
    "RSA for ES256": ("ES256", PUBLIC_KEYS["RS256"]),
    "RSA for EdDSA": ("EdDSA", PUBLIC_KEYS["RS256"]),
    "an elliptic curve for RS256": ("RS256", PUBLIC_KEYS["ES256"]),
    "an elliptic curve for EdDSA": ("EdDSA", PUBLIC_KEYS["ES256"]),
}


@pytest.mark.parametrize(("algorithm", "key"), UNFIT.values(), ids=UNFIT)
def test_a_public_key_that_cannot_verify_is_refused_at_the_start(
    algorithm: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=PUBLIC), service(monkeypatch, **{PUBLIC: key, ALGORITHM: algorithm}):
        pass


@pytest.mark.parametrize("secret", [PUBLIC_KEYS["RS256"], '{"kty": "oct", "k": "' + KEY + '"}', "ssh-rsa " + KEY])
def test_a_secret_that_is_another_kind_of_key_is_refused_at_the_start(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=SECRET), service(monkeypatch, **{SECRET: secret}):
        pass


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_as_long_as_its_algorithm_demands(
    algorithm: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(monkeypatch, **{SECRET: "x" * least, ALGORITHM: algorithm}) as app:
        assert verifies(app, jwt.encode(claims(), "x" * least, algorithm))
    with pytest.raises(ConfigurationError, match=SECRET), service(monkeypatch, **{SECRET: "x" * (least - 1)}):
        pass


@pytest.mark.parametrize(
    "url",
    [PROVIDER, "https://id.example:8443", "http://localhost:8080/keys", "http://127.0.0.1", "http://[::1]:1/keys"],
)
def test_keys_are_fetched_over_tls_or_from_this_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with service(monkeypatch, **{JWKS: url}) as app:
        assert not verifies(app, jwt.encode(claims(), KEY, "HS256"))


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "http://localhost.example/keys",
        "http://127.0.0.1:1@id.example/keys",
        "http://10.0.0.1/keys",
        "https://",
        "https:///keys",
        "https://id.example/my keys",
        "file:///etc/passwd",
        "ftp://localhost/keys",
        "id.example/keys",
        "true",
    ],
)
def test_keys_are_not_fetched_from_anywhere_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=JWKS), service(monkeypatch, **{JWKS: url}):
        pass


@pytest.mark.parametrize("source", [{PUBLIC: PUBLIC_KEYS["RS256"]}, {JWKS: PROVIDER}, {SECRET: KEY}])
@pytest.mark.parametrize("given", [{}, {ISSUER: "https://id.example"}, {AUDIENCE: "progress"}, "both"])
def test_with_keys_of_others_an_unchecked_issuer_or_audience_is_warned_of_once(
    source: dict[str, str], given: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {ISSUER: "https://id.example", AUDIENCE: "progress"} if given == "both" else given
    with service(monkeypatch, **source, **given):
        unchecked = set() if SECRET in source else {ISSUER, AUDIENCE} - set(given)

    warnings = [line for line in capsys.readouterr().err.splitlines() if '"warning"' in line]
    assert len(warnings) == bool(unchecked)
    assert {name for name in (ISSUER, AUDIENCE) for warning in warnings if name in warning} == unchecked


@pytest.mark.parametrize(("seconds", "verified"), [(-60, True), (-180, False)])
def test_clocks_may_differ_by_the_leeway(seconds: int, verified: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    past, future = (datetime.now(UTC) + timedelta(seconds=sign * seconds) for sign in (1, -1))
    with service(monkeypatch, **{SECRET: KEY, "PROGRESS_JWT_DECODE_LEEWAY": "120"}) as app:
        for given in ({"exp": past}, {"nbf": future}, {"iat": future}):
            assert verifies(app, jwt.encode(claims(**given), KEY, "HS256")) == verified


HERE, THERE = "https://id.example", "https://id.elsewhere"


@pytest.mark.parametrize(
    ("environment", "given", "verified"),
    [
        ({}, {}, True),
        ({}, {"iss": THERE, "aud": ["anything"]}, True),
        ({ISSUER: HERE}, {"iss": HERE}, True),
        ({ISSUER: HERE}, {"iss": HERE, "aud": "anything"}, True),
        ({ISSUER: HERE}, {"iss": THERE}, False),
        ({ISSUER: HERE}, {"iss": HERE + "/"}, False),
        ({ISSUER: HERE}, {}, False),
        ({AUDIENCE: "progress"}, {"aud": "progress"}, True),
        ({AUDIENCE: "progress"}, {"aud": ["grades", "progress"]}, True),
        ({AUDIENCE: "progress"}, {"aud": "grades"}, False),
        ({AUDIENCE: "progress"}, {"aud": "progress2"}, False),
        ({AUDIENCE: "progress"}, {"aud": []}, False),
        ({AUDIENCE: "progress"}, {}, False),
        ({AUDIENCE: "123"}, {"aud": "123"}, True),
        ({AUDIENCE: "123"}, {"aud": "12"}, False),
        ({AUDIENCE: "grades, progress"}, {"aud": "progress"}, True),
        ({AUDIENCE: " grades ,progress,, "}, {"aud": ["grades"]}, True),
        ({AUDIENCE: "grades, progress"}, {"aud": "grades, progress"}, False),
        ({AUDIENCE: "grades, progress"}, {"aud": ["mail", " progress"]}, False),
        ({AUDIENCE: "grades,"}, {"aud": ""}, False),
        ({AUDIENCE: ""}, {"aud": "anything"}, True),
        ({ISSUER: ""}, {"iss": THERE}, True),
        ({ISSUER: HERE, AUDIENCE: "progress"}, {"iss": HERE, "aud": "progress"}, True),
        ({ISSUER: HERE, AUDIENCE: "progress"}, {"iss": HERE, "aud": "grades"}, False),
        ({ISSUER: HERE, AUDIENCE: "progress"}, {"iss": THERE, "aud": "progress"}, False),
    ],
)
def test_issuer_and_audience_are_checked_where_they_are_configured(
    environment: dict[str, str], given: dict[str, Any], verified: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(monkeypatch, **{SECRET: KEY}, **environment) as app:
        assert verifies(app, jwt.encode(claims(**given), KEY, "HS256")) == verified


@pytest.mark.parametrize(
    ("written", "enrolls"),
    [(None, True)]
    + [(value, True) for value in ("True", "true", "TRUE", "tRue")]
    + [(value, False) for value in ("False", "false", "FALSE", "fAlse")]
    + [("1", True), ("0", False)],
)
def test_a_boolean_may_be_written_in_any_case(
    written: str | None, enrolls: bool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written is not None:
        monkeypatch.setenv("PROGRESS_AUTO_ENROLL", written)

    with application(database_url) as app:
        caller = Caller(app, "service", "lms")
        contents = [{"id": "sets", "title": "Sets", "type": "video"}]
        caller.put("/api/catalog/modules/algebra", json={"title": "Algebra", "contents": contents})
        response = caller.post("/api/progress", json={"userId": "sam", "contentId": "sets"})

        assert response.status_code == (201 if enrolls else 403)
        assert enrolls or response.get_json()["type"].endswith("not-enrolled")
        enrollment = caller.get("/api/enrollments/sam/algebra")
        assert enrollment.status_code == (200 if enrolls else 404)


@pytest.mark.parametrize("written", ["", "perhaps", "2", "null", "[]"])
def test_a_boolean_that_is_none_is_refused_by_name(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PROGRESS_AUTO_ENROLL"
    with pytest.raises(ConfigurationError, match=name), service(monkeypatch, **{SECRET: KEY, name: written}):
        pass


@pytest.mark.parametrize(
    "setting",
    ["POOL_SIZE=true", "LOCK_TIMEOUT=-1", "STATEMENT_TIMEOUT=1.5", "ROLE_CLAIM=true", "ROLE_CLAIM="]
    + ["USER_CLAIM=true", "USER_CLAIM="]
    + ["JWT_DECODE_ISSUER=true", "JWT_DECODE_AUDIENCE=true", "JWT_DECODE_AUDIENCE= , "]
    + [f"BIND={written}" for written in ("", "0.0.0.0:80", "::1", "http://h", "unix:", "unix:/a b", "a,", "[x]", "a b")]
    + ["BIND=*", "BIND=\udcff"]
    + [f"FORWARDED_ALLOW_IPS={written}" for written in ("", "proxy", "10.0.0.1/8", "::1,", "*.1", "true")]
    + [f"ROLE_NAMES={written}" for written in ("", "{", "[]", "5", '"x"', "true", '{"x": 1}', '{"x": ["admin"]}')]
    + [f"ROLE_NAMES={written}" for written in ('{"x": "boss"}', '{"x": "admin", "x": "student"}', '[["x", "admin"]]')],
)
def test_a_setting_of_another_type_is_refused_by_name(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, _, written = f"PROGRESS_{setting}".partition("=")
    with pytest.raises(ConfigurationError, match=name), service(monkeypatch, **{SECRET: KEY, name: written}):
        pass


WHOLE = {name: default for name, default in DEFAULTS.items() if isinstance(default, Whole)}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_outside_of_its_range_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, least, most = WHOLE[name]
    for number in (least - 1, most + 1, 10**20):
        wanted = f"PROGRESS_{name} must be a whole number from {least} to {most}"
        given = {SECRET: KEY, f"PROGRESS_{name}": str(number)}
        with pytest.raises(ConfigurationError, match=wanted), service(monkeypatch, **given):
            pass


@pytest.mark.parametrize("end", ["least", "most"])
def test_the_service_works_with_every_number_at_the_end_of_its_range(
    end: str, database_url: str, publish: Publish
) -> None:
    publish("algebra", ["sets"])
    with application(database_url, **{name: str(getattr(default, end)) for name, default in WHOLE.items()}) as app:
        sent = Caller(app, "student", "sam").post("/api/progress", json={"contentId": "sets", "session": "evening"})
        assert sent.status_code == 201, sent.text
        assert Caller(app, "service", "lms").get("/api/changes").status_code == 200
        purged = app.test_cli_runner().invoke(args=["progress", "purge"])
        assert purged.exit_code == 0, purged.output


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PROGRESS_POOLSIZE", "PROGRESS_POOL_SIZE"),
        ("PROGRESS_JWT_SECRET", "PROGRESS_JWT_SECRET_KEY"),
        ("PROGRESS_JWT_DECODE_ALGORITHMS", "PROGRESS_JWT_ALGORITHM"),
        ("PROGRESS_PORT", "PORT"),
        ("PROGRESS_SECRET_KEY", "PROGRESS_JWT_SECRET_KEY"),
        ("PROGRESS_JWT_KEY_FILE", "PROGRESS_JWT_SECRET_KEY_FILE"),
        ("PROGRESS_PROVIDE_AUTOMATIC_OPTIONS", None),
        ("PROGRESS_POOL__SIZE", "PROGRESS_POOL_SIZE"),
        ("PROGRESS_", None),
        ("PROGRESS_X", None),
    ],
)
def test_an_unknown_setting_is_refused_by_name_with_the_one_that_may_be_meant(
    name: str, meant: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as refusal, service(monkeypatch, **{SECRET: KEY, name: "s3cret"}):
        pass

    assert refusal.value.message == f"There is no setting {name}." + (f" Is {meant} meant?" if meant else "")


def test_several_wrong_settings_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"PROGRESS_X": "1", "PROGRESS_LOCK_TIMEOUT": "1\n2", "PROGRESS_AUTO_ENROLL": "perhaps", "PORT": "http"}
    with pytest.raises(ConfigurationError) as refusal, service(monkeypatch, **wrong):
        pass

    assert all(name in refusal.value.message for name in wrong)
    assert len(refusal.value.message.splitlines()) == 1


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("secret", [KEY, "true" * 8, f" {KEY}\n\t", "é" * 16])
def test_a_secret_may_come_from_a_file_whose_last_line_end_does_not_belong_to_it(
    secret: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(f"{secret}{end}".encode())
    with service(monkeypatch, **{SECRET: "", f"{SECRET}_FILE": str(file)}) as app:
        assert verifies(app, jwt.encode(claims(), secret, "HS256"))
        assert not verifies(app, jwt.encode(claims(), f"{secret} ", "HS256"))


def test_every_secret_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {URI: f"sqlite:///{tmp_path}/s3cret.db", PUBLIC: PUBLIC_KEYS["ES256"], WEBHOOK: WEBHOOK_KEY}
    for name, text in texts.items():
        (tmp_path / name).write_text(f"{text}\n")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    monkeypatch.setenv(ALGORITHM, "ES256")
    monkeypatch.setenv("PROGRESS_WEBHOOK_HOSTS", "hooks.example.org")
    app = create_app()

    assert app.config["SQLALCHEMY_DATABASE_URI"] == texts[URI]
    assert app.config["WEBHOOK_KEY"] == WEBHOOK_KEY
    assert verifies(app, jwt.encode(claims(), PRIVATE_KEYS["ES256"], "ES256"))
    assert {f"PROGRESS_{name}" for name in FROM_FILES} == {*texts, SECRET, PREVIOUS, REPLICA}


def test_the_url_of_replicas_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "replica"
    file.write_text("postgresql://reader:s3cret@two,three/progress\n")
    with service(monkeypatch, **{SECRET: KEY, URI: "postgresql://one/name", f"{REPLICA}_FILE": str(file)}) as app:
        replica = app.config["SQLALCHEMY_BINDS"]["replica"]
        assert (replica["url"].password, replica["url"].query["host"]) == ("s3cret", "two,three")
        assert replica["connect_args"]["target_session_attrs"] == "standby"


@pytest.mark.parametrize("name", [f"PROGRESS_{name}" for name in FROM_FILES])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\r\n", "is empty"),
        (b"s3cret\xff", "is not UTF-8"),
    ],
)
def test_a_file_without_a_secret_is_refused_by_the_name_of_its_setting(
    name: str, content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "line\nend"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as refusal, service(monkeypatch, **{URI: "", f"{name}_FILE": str(file)}):
        pass

    assert f"{name}_FILE: {str(file)!r} {said}." in refusal.value.message
    assert "s3cret" not in "".join(format_exception(refusal.value))
    assert len(refusal.value.message.splitlines()) == 1


def test_a_secret_from_the_environment_and_from_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(KEY)
    both = {SECRET: KEY, f"{SECRET}_FILE": str(tmp_path / "secret")}
    refusal = pytest.raises(ConfigurationError, match=f"{SECRET}_FILE is given, and {SECRET} too")
    with refusal, service(monkeypatch, **both):
        pass


LINKS = {
    "PROGRESS_SERVICE_HOST": "10.0.0.11",
    "PROGRESS_SERVICE_PORT": "80",
    "PROGRESS_SERVICE_PORT_HTTP": "80",
    "PROGRESS_PORT": "tcp://10.0.0.11:80",
    "PROGRESS_PORT_80_TCP": "tcp://10.0.0.11:80",
    "PROGRESS_PORT_80_TCP_PROTO": "tcp",
    "PROGRESS_PORT_80_TCP_PORT": "80",
    "PROGRESS_PORT_80_TCP_ADDR": "10.0.0.11",
    "PROGRESS_API_V2_SERVICE_HOST": "fd00::11",
    "PROGRESS_API_V2_PORT": "udp://[fd00::11]:53",
    "PROGRESS_API_V2_PORT_53_UDP_ADDR": "fd00::11",
}
"""What Kubernetes gives for Services that are named `progress` and `progress-api-v2`."""


def test_the_links_of_kubernetes_to_a_service_with_our_prefix_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with service(monkeypatch, **{SECRET: KEY}, **LINKS) as app:
        assert app.config["PORT"] == 8000


@pytest.mark.parametrize("name", LINKS)
def test_what_only_resembles_such_a_link_is_an_unknown_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=name), service(monkeypatch, **{SECRET: KEY, name: "example.org"}):
        pass


@pytest.mark.parametrize("written", ["False", "false", "FALSE"])
def test_a_setting_of_flask_or_an_extension_may_be_switched_off_too(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("SQLALCHEMY_ECHO", "DEBUG", "TESTING", "PROPAGATE_EXCEPTIONS")
    environment = {f"PROGRESS_{name}": written for name in names}
    with service(monkeypatch, **{SECRET: KEY}, **environment) as app:
        assert {name: app.config[name] for name in names} == dict.fromkeys(names, False)


def test_the_database_is_sqlite_in_the_instance_folder_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def database(app: Flask) -> str | None:
        with app.app_context():
            assert db.engine.dialect.name == "sqlite"
            return db.engine.url.database

    elsewhere = f"{tmp_path}/elsewhere.db"
    monkeypatch.setenv(SECRET, KEY)
    app = create_app()
    assert database(app) == str(Path(app.instance_path) / "progress.db")
    assert app.instance_path.endswith("instance")

    with service(monkeypatch, **{URI: f"sqlite:///{elsewhere}"}) as app:
        assert database(app) == elsewhere


def test_an_instance_folder_that_cannot_be_made_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    folder = f"{tmp_path}/file/instance"
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda _: folder)
    given = {SECRET: KEY, URI: "sqlite:///progress.db"}
    with pytest.raises(ConfigurationError, match=URI) as refusal, service(monkeypatch, **given):
        pass

    assert refusal.value.message.endswith(f"{folder!r} cannot be made for SQLite: Not a directory.")
    with service(monkeypatch, **{SECRET: KEY, URI: f"sqlite:///{tmp_path}/a"}):
        pass


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("postgres://u:p@h/d", {"user": "u", "password": "p", "host": "h", "dbname": "d"}),
        ("postgresql://u:p@h:5433/d", {"user": "u", "password": "p", "host": "h", "port": "5433", "dbname": "d"}),
        ("postgresql+psycopg://u@/d?host=/tmp&port=1", {"user": "u", "host": "/tmp", "port": "1", "dbname": "d"}),
        ("postgres://u:p%40%2F%25@h/d", {"user": "u", "password": "p@/%", "host": "h", "dbname": "d"}),
        ("postgres://u:p/+%zz@h/d", {"user": "u", "password": "p/+%zz", "host": "h", "dbname": "d"}),
        ("postgres://h/d?user=u&password=p%40", {"user": "u", "password": "p@", "host": "h", "dbname": "d"}),
        ("postgres://%2Ftmp/d", {"host": "/tmp", "dbname": "d"}),
        (
            "postgres://h/d?options=-csearch_path=a%20-cb=c",
            {"host": "h", "dbname": "d", "options": "-csearch_path=a -cb=c"},
        ),
        ("postgres://u@a:1,b:2/d", {"user": "u", "host": "a,b", "port": "1,2", "dbname": "d"}),
        ("postgres://a,b:2,[::1]:3/d", {"host": "a,b,::1", "port": ",2,3", "dbname": "d"}),
        ("postgres:///d?host=a,b&port=7", {"host": "a,b", "port": "7,7", "dbname": "d"}),
    ],
)
def test_a_url_of_postgresql_is_read_as_its_own_programs_read_it(
    written: str, means: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with service(monkeypatch, **{SECRET: KEY, URI: written}) as app, app.app_context():
        _, connects = db.engine.dialect.create_connect_args(db.engine.url)
        assert db.engine.driver == "psycopg"
        assert {name: connects[name] for name in connects if name != "context"} == means


@pytest.mark.parametrize(
    "written",
    [
        "secret",
        "secret@host/name",
        "mysql://user:secret@host/name",
        "postgresql+psycopg2://user:secret@host/name",
        "postgresql://user:secret@host:port/name",
        "postgresql://user:secret@host:99999/name",
        "postgresql://user:secret@a:1,b:c/name",
        "postgresql://user:secret@a:1,b:2,c:3/name?port=1,2",
        "postgresql://user@/name?host=a:1,b:2&password=secret",
        "postgresql://user@/name?host=a&host=b&password=secret",
        "postgresql://user:secret@[::1/name",
        "postgresql://user:se@secret@host/name",
        "postgresql://user:se?secret@host/name",
        "postgresql://user:secret@host/name?sslmod=require",
        "postgresql://user:secret@host/name?secret",
        "postgresql://user@host/name?connect_timeout=secret",
        "sqlite://user:secret@host/name",
        "sqlite:secret",
        "sqlite:////path?timeout=secret",
        "sqlite:////path?mode=secret",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_in_one_line_that_shows_nothing_of_it(
    written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=URI) as refusal, service(monkeypatch, **{SECRET: KEY, URI: written}):
        pass

    traceback = "".join(format_exception(refusal.value))
    assert "secret" not in traceback
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "flask --app wsgi db upgrade",
        "flask --app wsgi progress verify",
        "flask --app wsgi --help",
        "flask --app progress_service db upgrade",
        "gunicorn -c python:progress_service.serving wsgi:app",
        "gunicorn -c python:progress_service.serving --reload --preload wsgi:app",
        "gunicorn -c python:progress_service.serving --check-config wsgi:app",
        "wsgi",
    ],
)
def test_whatever_starts_with_a_wrong_setting_ends_with_one_line_that_names_it(command: str) -> None:
    environment = {SECRET: KEY, URI: "mysql://user:s3cret@host/name", "WEB_CONCURRENCY": "1", "PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )

    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (78, "")
    assert line.startswith("Error: ")
    assert URI in line
    assert "s3cret" not in line

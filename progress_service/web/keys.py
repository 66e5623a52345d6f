"""The keys that verify tokens: a configured key, or the keys that an identity provider publishes."""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from threading import Lock
from time import monotonic
from typing import Any
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from cryptography.exceptions import UnsupportedAlgorithm
from flask import current_app
from jwt import InvalidKeyError, InvalidTokenError, PyJWS, PyJWTError, get_algorithm_by_name

from progress_service import figures
from progress_service.config import ConfigurationError
from progress_service.web.problems import unavailable
from progress_service.web.validation import parse_json

LIFETIME = 300
"""In seconds; older keys are fetched again."""
COOLDOWN = 30
"""In seconds, between two requests to the provider, however many unknown keys are named by tokens."""
TIMEOUT = 3
"""In seconds, for the provider to answer."""
LARGEST_SET = 256 * 1024
UNFIT = (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm)
"""The exceptions for a key that an algorithm cannot use."""

_JWKS_URL = re.compile(r"https://[^/\s]\S*|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?")
_HEADERS = {"Accept": "application/json", "User-Agent": "progress-service"}

# Without urllib's other handlers there are no redirects, and no URLs of files.
_OPENER = OpenerDirector()
for _handler in (ProxyHandler(), HTTPHandler(), HTTPSHandler()):
    _OPENER.add_handler(_handler)


def configured(config: Mapping[str, Any]) -> "ConfiguredKeys | KeySet":
    """Return the keys that the settings name."""
    algorithm = config["JWT_ALGORITHM"]
    if url := config.get("JWT_JWKS_URL"):
        return KeySet(url, algorithm)
    names = ["JWT_SECRET_KEY" if config.get("JWT_SECRET_KEY") else "JWT_PUBLIC_KEY"]
    if config["JWT_PREVIOUS_SECRET_KEY"]:
        names.append("JWT_PREVIOUS_SECRET_KEY")
    return ConfiguredKeys([_configured_key(name, config[name], algorithm) for name in names], algorithm)


def _configured_key(name: str, key: Any, algorithm: str) -> Any:
    try:
        return _verifying_key(key, algorithm)
    except UNFIT as error:
        raise ConfigurationError(f"PROGRESS_{name} is no key for {algorithm}, or has too few bits.") from error


class NoKeys(Exception):
    """The identity provider has never been reached."""


class ConfiguredKeys:
    """The configured keys, the current one first. They never change."""

    def __init__(self, keys: Sequence[Any], algorithm: str) -> None:
        self.version = object()
        self._keys = keys
        self._algorithm = algorithm

    def find(self, _: str | None, token: str) -> Any:
        """Return the key that has signed a token; the current one if none has."""
        return next((key for key in self._keys[1:] if self._has_signed(key, token)), self._keys[0])

    def _has_signed(self, key: Any, token: str) -> bool:
        try:
            PyJWS().decode(token, key, [self._algorithm])
        except InvalidTokenError:
            return False
        return True


class KeySet:
    """The keys of an identity provider, fetched when they are needed and kept while it cannot be reached."""

    def __init__(self, url: str, algorithm: str) -> None:
        if not _JWKS_URL.fullmatch(str(url)):
            raise ConfigurationError("PROGRESS_JWT_JWKS_URL must begin with https://, or name this host.")
        self._url = url
        self._algorithm = algorithm
        self._keys: dict[str, Any] | None = None
        self._stale_at = self._next_fetch = 0.0
        self._pause = 0
        self._lock = Lock()

    @property
    def version(self) -> object:
        """An object that stays the same while the keys do; another at each call when they must be fetched again."""
        # It is set after the keys. The keys themselves would be kept by every token that remembers its version.
        stale_at = self._stale_at
        return stale_at if monotonic() < stale_at else object()

    def find(self, key_id: str | None, _: str) -> Any:
        """Return a key. Raises 401 if the provider has no key with this id, and 503 if it has never been reached."""
        if key_id is None:
            raise InvalidTokenError("The token does not name its key.")
        is_known = key_id in (self._keys or ())
        if not is_known or monotonic() >= self._stale_at:
            self._renew(patience=0 if is_known else TIMEOUT)
        known = self._keys
        if known is None:
            raise unavailable(math.ceil(self._next_fetch - monotonic())) from NoKeys()
        if key_id not in known:
            raise InvalidTokenError("The token names an unknown key.")
        return known[key_id]

    def _renew(self, patience: float) -> None:
        """Fetch the keys when it is time. Meanwhile threads without a key wait, and others use the old keys."""
        if self._lock.acquire(timeout=patience):
            try:
                if monotonic() >= self._next_fetch:
                    self._fetch()
            finally:
                self._lock.release()

    def _fetch(self) -> None:
        """Replace the keys by those of the provider. If that fails, keep them, and wait longer before each new try."""
        began = monotonic()
        try:
            self._keys = _verifying_keys(_get(self._url, began + TIMEOUT), self._algorithm)
        except (OSError, HTTPException, ValueError) as error:
            current_app.logger.warning("keys of the identity provider unavailable: %r", error)
            self._pause = min(max(1, 2 * self._pause), COOLDOWN)
            figures.own().key_fetches.labels("failed").inc()
        else:
            level = logging.INFO if self._keys else logging.WARNING
            current_app.logger.log(level, "identity provider has %d keys for %s", len(self._keys), self._algorithm)
            self._pause, self._stale_at = COOLDOWN, began + LIFETIME
            figures.own().key_fetches.labels("succeeded").inc()
            figures.own().keys_fetched.set_to_current_time()
        self._next_fetch = monotonic() + self._pause


def _get(url: str, deadline: float) -> bytes:
    """Read a short document without redirects, before a deadline."""
    body = b""
    with _OPENER.open(Request(url, headers=_HEADERS), timeout=TIMEOUT) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        while chunk := response.read1(LARGEST_SET):
            body += chunk
            if len(body) > LARGEST_SET or monotonic() > deadline:
                raise ValueError("too long or too slow")
    return body


def _verifying_keys(body: bytes, algorithm: str) -> dict[str, Any]:
    """Return the keys of a JWK Set that sign with the algorithm, by id. Keys that share an id are left out."""
    document = parse_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JWK Set")
    keys: dict[str, Any] = {}
    ambiguous = set()
    for jwk in document["keys"]:
        is_named = isinstance(jwk, dict) and isinstance(jwk.get("kid"), str)
        if is_named and jwk.get("use", "sig") == "sig" and jwk.get("alg", algorithm) == algorithm:
            with suppress(*UNFIT):
                key = _verifying_key(get_algorithm_by_name(algorithm).from_jwk(jwk), algorithm)
                if keys.setdefault(jwk["kid"], key) != key:
                    ambiguous.add(jwk["kid"])
    if ambiguous:
        current_app.logger.warning("identity provider has several keys for each of %s", sorted(ambiguous))
    return {key_id: key for key_id, key in keys.items() if key_id not in ambiguous}


def _verifying_key(key: Any, name: str) -> Any:
    """Parse a key, once for all tokens. Raises an exception of UNFIT for a key that cannot verify."""
    algorithm = get_algorithm_by_name(name)
    prepared = algorithm.prepare_key(key)
    if hasattr(prepared, "private_bytes"):
        raise InvalidKeyError("This is a private key.")
    if too_short := algorithm.check_key_length(prepared):
        raise InvalidKeyError(too_short)
    return prepared

"""A change is sent to a webhook: as a CloudEvent, signed as Standard Webhooks say, to an address that was checked."""

import socket
from contextlib import closing, suppress
from datetime import datetime
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLContext, create_default_context
from threading import Timer
from time import monotonic

from cryptography.fernet import InvalidToken

from progress_service.changes.hosts import Host, Target, addresses, find_host
from progress_service.changes.settings import Settings
from progress_service.store.journal import Told
from progress_service.store.webhooks import StoredWebhook
from progress_service.web.documents import EventDocument
from progress_service.web.serialization import encode

CONNECT_SECONDS = 5
ANSWER_SECONDS = 15
"""The most seconds from looking up the name until the answer's status."""


class NotSent(Exception):
    """There was no answer; the message says why, and quotes nothing from the receiver."""


def send(settings: Settings, webhook: StoredWebhook, told: Told, now: datetime) -> int:
    """Send a change, and return the status of the answer. Raises `NotSent`.

    Redirects are not followed, and the body of the answer is not read.
    """
    admitted = find_host(settings.hosts, webhook.url)
    if not admitted or not settings.signer:
        raise NotSent("its host is not allowed")
    secrets = [webhook.secret]
    if webhook.previous_secret and webhook.previous_until and now < webhook.previous_until:
        secrets.append(webhook.previous_secret)
    body = encode(EventDocument.of(told))
    try:
        signature = settings.signer.sign(secrets, str(told.id), now, body.decode())
    except InvalidToken as error:
        raise NotSent("no key decrypts its secret") from error
    headers = {
        "Content-Type": "application/cloudevents+json",
        "User-Agent": "progress-service",
        "webhook-id": str(told.id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    return _post(*admitted, headers, body)


def _post(target: Target, host: Host, headers: dict[str, str], body: bytes) -> int:
    """Send to the first address of a target that accepts a connection, and return the status. Raises `NotSent`."""
    end = monotonic() + ANSWER_SECONDS
    try:
        found = list(addresses(target, host))
    except (OSError, UnicodeError) as error:
        raise NotSent("its name cannot be resolved") from error
    if not found:
        raise NotSent("its addresses are not allowed")
    if monotonic() >= end:
        raise NotSent("its name took too long to resolve")
    try:
        with closing(_connected(found, target.port, end)) as plain, plain.dup() as watched:
            # Receivers that answer byte by byte, or not even begin with TLS, are cut off as well.
            watch = Timer(max(0, end - monotonic()), _cut, [watched])
            watch.start()
            try:
                with closing(_speaking(target, plain)) as connection:
                    connection.request("POST", target.path, body, headers)
                    return connection.getresponse().status
            finally:
                watch.cancel()
                watch.join()
    except (OSError, HTTPException) as error:
        raise NotSent(f"no answer: {type(error).__name__}") from error


def _connected(found: list[str], port: int, end: float) -> socket.socket:
    """Return a connection to the first of some addresses that accepts one. Raises OSError."""
    *others, last = found
    for address in others:
        with suppress(OSError):
            return _connect(address, port, end)
    return _connect(last, port, end)


def _connect(address: str, port: int, end: float) -> socket.socket:
    connection = socket.create_connection((address, port), max(0.1, min(CONNECT_SECONDS, end - monotonic())))
    connection.settimeout(ANSWER_SECONDS)
    return connection


def _speaking(target: Target, plain: socket.socket) -> HTTPConnection:
    """Return a connection that speaks HTTP, or HTTPS as the certificate of the target allows. Raises OSError."""
    if target.scheme == "http":
        connection = HTTPConnection(target.name, target.port)
        connection.sock = plain
    else:
        connection = HTTPSConnection(target.name, target.port)
        connection.sock = _tls().wrap_socket(plain, server_hostname=target.name)
    return connection


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):  # the receiver has closed it already
        connection.shutdown(socket.SHUT_RDWR)


@cache
def _tls() -> SSLContext:
    return create_default_context()

"""The settings of webhooks: where they may be, and the keys that encrypt their secrets."""

from typing import NamedTuple, Self

from flask import Flask, current_app

from progress_service.changes.hosts import Host, read_hosts
from progress_service.changes.signing import Signer
from progress_service.config import ConfigurationError

NAME = "webhooks"


class Settings(NamedTuple):
    """The hosts that webhooks may be at. Without keys there are none."""

    hosts: list[Host]
    signer: Signer | None

    @classmethod
    def current(cls) -> Self:
        settings: Self = current_app.extensions[NAME]
        return settings


def prepare(app: Flask) -> None:
    """Read the settings of webhooks. Raises ConfigurationError, which shows no part of a key."""
    try:
        hosts = read_hosts(app.config["WEBHOOK_HOSTS"])
    except ValueError as error:
        raise ConfigurationError(f"PROGRESS_WEBHOOK_HOSTS cannot be read: {error}.") from error
    keys = app.config["WEBHOOK_KEY"]
    if hosts and not keys:
        raise ConfigurationError("PROGRESS_WEBHOOK_HOSTS needs PROGRESS_WEBHOOK_KEY, which encrypts secrets.")
    try:
        app.extensions[NAME] = Settings(hosts, Signer.read(keys) if keys else None)
    except ValueError:
        raise ConfigurationError(
            "PROGRESS_WEBHOOK_KEY must be 32 bytes in URL-safe base64, or several such keys with commas."
        ) from None  # so that the cause is not shown

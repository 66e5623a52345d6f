"""The secrets of webhooks, kept encrypted, and the signatures made with them, as Standard Webhooks define them."""

import base64
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from cryptography.fernet import Fernet, MultiFernet
from standardwebhooks import Webhook

BOTH_VALID = timedelta(days=1)
"""For how long a secret that was replaced signs beside the new one."""
SECRET_BYTES = 32


class Secret(NamedTuple):
    """A secret as its receiver is told it, and as it is stored."""

    plain: str
    encrypted: str


class Signer:
    """Makes secrets, and signs with them."""

    def __init__(self, keys: Iterable[str]) -> None:
        """Take the keys that encrypt secrets: the first encrypts, each decrypts. Raises ValueError."""
        self._keys = MultiFernet([Fernet(key) for key in keys])

    @classmethod
    def read(cls, written: str) -> Self:
        """Read the keys of the setting, which are separated by commas. Raises ValueError."""
        return cls(key.strip() for key in written.split(","))

    def make(self) -> Secret:
        plain = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        return Secret(plain, self._keys.encrypt(plain.encode()).decode())

    def sign(self, encrypted: Iterable[str], id_: str, at: datetime, body: str) -> str:
        """Sign a message with each of the secrets. Raises `InvalidToken` if no key decrypts a secret."""
        plain = (self._keys.decrypt(secret).decode() for secret in encrypted)
        return " ".join(Webhook(secret).sign(id_, at, body) for secret in plain)

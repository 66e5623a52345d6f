"""The hosts that webhooks may be at, and the addresses that these hosts may have.

Whoever makes a webhook lets this service send requests. So operators name the hosts, and the address of a host is
looked up and checked again each time, just before the service connects to it.
"""

import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, Self
from urllib.parse import urlsplit

PORTS = {"https": 443, "http": 80}
_WRITTEN = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<below>\*\.)?(?P<address>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
)


class Host(NamedTuple):
    """A host that webhooks may be at, or all hosts below a name."""

    scheme: str
    name: str
    port: int
    is_below: bool

    @classmethod
    def read(cls, written: str) -> Self:
        """Read a host as the setting has it: `example.org`, `*.example.org`, `example.org:8443`, `http://localhost`.

        Raises ValueError.
        """
        found = _WRITTEN.fullmatch(written)
        if not found:
            raise ValueError(f"{written!r} is no host")
        scheme = found["scheme"] or "https"
        port = int(found["port"] or PORTS[scheme])
        if not 0 < port < 2**16:
            raise ValueError(f"{written!r} has no port")
        return cls(scheme, found["address"].strip("[]").lower(), port, bool(found["below"]))

    def admits(self, target: "Target") -> bool:
        """Tell whether this host is that of a target, or the target's is below it."""
        is_named = target.name.endswith(f".{self.name}") if self.is_below else target.name == self.name
        return is_named and (target.scheme, target.port) == (self.scheme, self.port)

    def may_be_at(self, address: IPv4Address | IPv6Address) -> bool:
        """Tell whether the service may connect to an address of this host.

        Only a host that is named itself may have an address of a private network or of this machine. An address by
        which clouds tell secrets (link-local) must itself be named.
        """
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        address = mapped or address
        if str(address) == self.name:
            return True
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return False
        return address.is_global or not self.is_below


class Target(NamedTuple):
    """Where a webhook is, as its URL says."""

    scheme: str
    name: str
    port: int
    path: str

    @classmethod
    def read(cls, url: str) -> Self:
        """Read a URL. Raises ValueError for one that names no host, or no port."""
        parts = urlsplit(url)
        if not parts.hostname:
            raise ValueError("no host")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme], path)


def read_hosts(written: str) -> list[Host]:
    """Read the hosts of the setting, which are separated by commas. Raises ValueError."""
    return [Host.read(name.strip()) for name in written.split(",") if name.strip()]


def find_host(hosts: list[Host], url: str) -> tuple[Target, Host] | None:
    """Return where a URL leads, with the host that admits it, or None if no host does."""
    try:
        target = Target.read(url)
    except ValueError:
        return None
    # A host that is named itself may have more addresses.
    admitting = sorted((host for host in hosts if host.admits(target)), key=lambda host: host.is_below)
    return (target, admitting[0]) if admitting else None


def addresses(target: Target, host: Host) -> Iterator[str]:
    """Look up the addresses of a target now, and yield those that its host may be at. Raises OSError."""
    for *_, (address, *_) in socket.getaddrinfo(target.name, target.port, type=socket.SOCK_STREAM):
        if host.may_be_at(ip_address(str(address).partition("%")[0])):
            yield str(address)

"""Which addresses somebody else may make us connect to: public ones, and networks that the operator names.

Judged when a socket is made for an address, which is after every name has been looked up: what a name means, how a host
is written (`2130706433`, `[::ffff:127.0.0.1]`) and what a name server answers the second time make no difference.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network

#: IPv6 that stands for IPv4: a translator on the way leads to what is in its last 32 bits (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")
#: What not every version of Python counts as private: protocol assignments (RFC 6890), translators of one's own
#: (RFC 8215), IPv4 before it was IPv4-mapped (RFC 4291, 2.5.5.1), site-local addresses (RFC 3879).
_PRIVATE = tuple(ip_network(each) for each in ("192.0.0.0/24", "64:ff9b:1::/48", "::/96", "fec0::/10"))


class PrivateAddress(OSError):
    """A connection to an address that is not public was refused. One text for all: many addresses of one host count
    as one mistake."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "address is not public")


def is_allowed(address: str, networks: Sequence[Network] = ()) -> bool:
    """Whether `address` is public, or in one of `networks`.

    >>> [is_allowed(each) for each in ("93.184.216.34", "169.254.169.254", "::ffff:10.0.0.1", "fe80::1%eth0")]
    [True, False, False, False]
    """
    # A zone (%eth0) is not part of the number; only link-local addresses have one.
    parsed = ip_address(address.partition("%")[0])
    every = _meant(parsed)
    if any(_within(each, networks) for each in (parsed, *every)):
        return True
    return all(
        each.is_global and not each.is_multicast and not each.is_reserved and not _within(each, _PRIVATE)
        for each in every
    )


def _within(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Where an address leads: itself, and addresses of IPv4 that are in one of IPv6."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _TRANSLATED:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *filter(None, (address.sixtofour, *(address.teredo or ())))]


def guarded_sockets(networks: Sequence[Network] = ()) -> Callable[[Any], socket.socket]:
    """For `TCPConnector(socket_factory=…)`: sockets for public addresses, and those in `networks`.

    Raises:
        PrivateAddress: from what it returns, before anything is sent.
    """

    def make(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
        family, kind, protocol, _, place = address
        if not is_allowed(str(place[0]), networks):
            raise PrivateAddress
        return socket.socket(family, kind, protocol)

    return make


def everywhere() -> tuple[Network, ...]:
    """Networks that hold every address."""
    return ip_network("0.0.0.0/0"), ip_network("::/0")

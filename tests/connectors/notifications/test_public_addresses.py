"""Which addresses count as public."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.connectors.notifications.public_addresses import is_allowed

PRIVATE = [
    "0.0.0.0", "10.1.2.3", "100.100.100.200", "127.0.0.53", "169.254.169.254", "172.31.255.255", "192.0.0.192",
    "192.168.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:192.168.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::",
    "2001:0:a00:1::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_private_address_is_not_allowed(address: str) -> None:
    """Loopback, links, metadata services, shared and reserved space, and IPv6 that leads there."""
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_public_address_is_allowed(address: str) -> None:
    """What anybody can reach."""
    assert is_allowed(address)


def test_network_that_is_named_is_allowed() -> None:
    """And nothing beside it; in both spellings of IPv4."""
    networks = [ip_network("10.1.0.0/16")]

    found = [is_allowed(each, networks) for each in ("10.1.2.3", "::ffff:10.1.2.3", "10.2.0.1", "127.0.0.1")]

    assert found == [True, True, False, False]


@given(st.integers(0, 2**32 - 1))
def test_every_way_to_write_an_address_counts_the_same(number: int) -> None:
    """IPv4, IPv4-mapped, and behind a translator: none is allowed where the plain one is not."""
    plain = IPv4Address(number)
    others = [IPv6Address(0xFFFF00000000 + number), IPv6Address(int(IPv6Address("64:ff9b::")) + number)]

    assert all(is_allowed(str(each)) <= is_allowed(str(plain)) for each in others)

"""Which addresses may be connected to: every private, local and embedded one is refused unless it is named."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchfox.core.addresses import Allowed

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "64:ff9b::808:808"]
REFUSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "not an address",
    "",
    "2130706433",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert Allowed().permits(address)


@pytest.mark.parametrize("address", REFUSED)
def test_all_others_are_refused(address: str) -> None:
    assert not Allowed().permits(address)


def test_what_the_user_names_is_opened_and_nothing_beside_it() -> None:
    opened = Allowed(["10.1.0.0/16", "fd00::/64"])
    assert all(map(opened.permits, ["10.1.2.3", "::ffff:10.1.2.3", "fd00::5", "8.8.8.8"]))
    assert not any(map(opened.permits, ["10.2.0.1", "fd00:1::5", "127.0.0.1", "::ffff:10.2.0.1"]))
    with pytest.raises(ValueError, match="not"):
        Allowed(["ten"])


@given(st.integers(0, 2**32 - 1))
def test_an_embedded_address_is_as_good_as_itself(number: int) -> None:
    plain, allowed = IPv4Address(number), Allowed()
    mapped = IPv6Address((0xFFFF << 32) | number)
    translated = IPv6Address((0x64FF9B << 96) | number)
    assert allowed.permits(str(mapped)) == allowed.permits(str(translated)) == allowed.permits(str(plain))

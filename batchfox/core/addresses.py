"""Which addresses this machine may fetch media from: public ones, and those of the networks that the user names.

An IPv6 address that carries an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is as good as that one. What a URL
writes (decimal, hex, octal forms, names) does not matter: only what is connected to is asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
# Not public, whatever the standard library's table says: shared (carrier) space, and the clouds' metadata services.
_NOT_PUBLIC: tuple[Network, ...] = (
    IPv4Network("100.64.0.0/10"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("198.18.0.0/15"),
    IPv6Network("fec0::/10"),
    IPv6Network("64:ff9b:1::/48"),
)


class Allowed:
    """The addresses that may be connected to. `networks`: CIDRs that the user opens; raises ValueError for others."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._opened = [ip_network(network) for network in networks]

    def permits(self, host: str) -> bool:
        """May the address in `host`, as a socket's address has it, be connected to?"""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        inner = list(_within(address))
        if any(_lies_in(one, self._opened) for one in (address, *inner)):
            return True
        return all(_is_public(one) for one in inner) if inner else _is_public(address)


def _lies_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if address.version == network.version)


def _within(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 one carries."""
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo
    elif any(address in network for network in _NAT64) or (address in _COMPATIBLE and int(address) > 0xFFFF):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _is_public(address: Address) -> bool:
    if _lies_in(address, _NOT_PUBLIC):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)

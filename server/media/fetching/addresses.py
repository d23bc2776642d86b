"""Which network addresses a stranger's URL may lead to.

`ipaddress.is_global` does not decide this: on Python 3.11 it holds for ::127.0.0.1, 64:ff9b::/96, 2002::/16, multicast
and some metadata services. So the lists are our own, after the IANA special-purpose address registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry), and an IPv4 address
inside an IPv6 one is judged as well. Nothing here resolves a name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import httpx

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

_DENIED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform service
        "169.254.0.0/16",  # link-local; 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, retired
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")
"""The only part of IPv6 that IANA gives out: loopback, fc00::/7, fe80::/10, fec0::/10 and ff00::/8 lie outside."""
_DENIED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments; Teredo is 2001::/32
        "2001:db8::/32",  # documentation
        "3ffe::/16",  # 6bone, returned
        "3fff::/20",  # documentation
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")


class RefusedAddressError(Exception):
    """An address that a stranger's URL must not lead to. Carries no address, so that none reaches a client."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """What the operator lets clients reach although the rules would refuse it, such as an internal picture store.

    `networks`: addresses that are let through. `hosts`: pairs of host name or address as it stands in the URL, and port
    (None is every port); an allowed host is trusted wherever its name leads.
    """

    networks: tuple[IPNetwork, ...] = ()
    hosts: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def parse(cls, hosts: Iterable[str] = (), networks: Iterable[str] = ()) -> AllowList:
        """Read entries such as `pictures.internal`, `10.0.0.5:9000`, `[fd00::5]` and networks such as `10.1.0.0/16`.

        Raises ValueError, naming the entry that cannot be read.
        """
        return cls(tuple(_parse_network(entry) for entry in networks), frozenset(_parse_host(entry) for entry in hosts))

    def has_host(self, host: str, port: int) -> bool:
        """Whether the operator named this host; `host` is normalised: lower case, IDNA, no trailing dot."""
        return (host, None) in self.hosts or (host, port) in self.hosts


def check_address(address: str | IPAddress, networks: Iterable[IPNetwork] = ()) -> IPAddress:
    """The parsed address, if a stranger's URL may lead to it: it is public, or in one of the allowed `networks`.

    An IPv4 address mapped into IPv6 (::ffff:0:0/96) comes back as IPv4, since that is what a socket would reach.

    Raises RefusedAddressError for every other address, for one with a zone, and for text that is no address.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise RefusedAddressError from None
    if isinstance(parsed, IPv6Address):
        if parsed.scope_id is not None:
            raise RefusedAddressError
        if parsed in _MAPPED:
            parsed = _low_bits(parsed)
    if _is_public(parsed) or any(parsed in network for network in networks):
        return parsed
    raise RefusedAddressError


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _DENIED_V4)
    if address in _NAT64:
        return _is_public(_low_bits(address))
    # The rest of the embeddings (compat ::/96, local NAT64 64:ff9b:1::/48, Teredo) lie outside what is public.
    if address not in _PUBLIC_V6 or any(address in network for network in _DENIED_V6):
        return False
    if address in _SIX_TO_FOUR:
        return _is_public(IPv4Address((int(address) >> 80) & 0xFFFFFFFF))
    if (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE:  # ISATAP, RFC 5214
        return _is_public(_low_bits(address))
    return True


def _low_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFFFFFF)


def _parse_network(entry: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(entry.strip(), strict=False)
    except ValueError:
        raise ValueError(f"allowed network {entry!r} is not an address or a network such as 10.1.0.0/16") from None


def _parse_host(entry: str) -> tuple[str, int | None]:
    # Through the same parser as clients' URLs. The made-up scheme has no default port that would swallow an entry's.
    try:
        url = httpx.URL(f"allowed://{entry.strip()}")
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    host = url.raw_host.decode("ascii").removesuffix(".")
    bare = not url.userinfo and url.raw_path in (b"", b"/") and not url.fragment
    if not host or not bare or any(character in host for character in "*%/ "):
        raise ValueError(f"allowed host {entry!r} is not a host name or host:port")
    return host, url.port

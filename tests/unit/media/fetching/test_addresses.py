"""Where a stranger's URL may lead, in every spelling that attackers are known to try."""

import ipaddress

import pytest

from server.media.fetching.addresses import AllowList, RefusedAddressError, check_address

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:4860::5efe:8.8.8.8",
]

REFUSED = [
    # this host, loopback
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "::",
    "::1",
    # private
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "fc00::1",
    "fd12:3456:789a::1",
    # metadata and platform services
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    # link-local, site-local, with zones
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%eth0",
    "fec0::1",
    # carrier-grade NAT, protocol assignments, documentation, benchmarks
    "100.64.0.1",
    "100.127.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "2001:db8::1",
    "2001:2::1",
    "2001:10::1",
    "2001:1ff::1",
    "3fff::1",
    "3ffe::1",
    "5f00::1",
    "100::1",
    "4000::1",
    # multicast, reserved, broadcast
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "ff02::1",
    "ff0e::1",
    # IPv4 inside IPv6: mapped, compatible, translated, NAT64 (public and local), 6to4, Teredo, ISATAP
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::ffff:168.63.129.16",
    "::127.0.0.1",
    "::169.254.169.254",
    "::8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "64:ff9b:1:a9fe:a9:fe00::",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:a00:1::",
    "2001:0:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2606:4700::5efe:10.0.0.1",
    "2606:4700::200:5efe:127.0.0.1",
    # no address at all
    "",
    "localhost",
    "127.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1.",
    "[::1]",
    "127.0.0.1:80",
    "１２７.0.0.1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("address", REFUSED)
def test_all_others_are_refused(address: str) -> None:
    with pytest.raises(RefusedAddressError) as caught:
        check_address(address)
    assert str(caught.value) == ""


def test_a_mapped_address_comes_back_as_what_a_socket_would_reach() -> None:
    assert check_address("::ffff:8.8.8.8") == ipaddress.ip_address("8.8.8.8")


def test_an_allowed_network_lets_its_own_addresses_through_and_no_others() -> None:
    networks = AllowList.parse(networks=["10.1.0.0/16", "fd00:1::/32"]).networks
    check_address("10.1.2.3", networks)
    check_address("::ffff:10.1.2.3", networks)
    check_address("fd00:1::5", networks)
    for address in ("10.2.0.1", "127.0.0.1", "fd00:2::1", "::10.1.2.3", "2002:a01:203::1", "fd00:1::5%eth0"):
        with pytest.raises(RefusedAddressError):
            check_address(address, networks)


@pytest.mark.parametrize(
    ("entry", "host", "port", "passes"),
    [
        ("pictures.internal", "pictures.internal", 9000, True),
        ("Pictures.Internal.", "pictures.internal", 80, True),
        ("pictures.internal:9000", "pictures.internal", 9000, True),
        ("pictures.internal:80", "pictures.internal", 80, True),
        ("pictures.internal:80", "pictures.internal", 81, False),
        ("pictures.internal:9000", "pictures.internal", 80, False),
        ("pictures.internal", "evil.pictures.internal", 80, False),
        ("pictures.internal", "pictures.internal.evil.com", 80, False),
        ("10.0.0.5:9000", "10.0.0.5", 9000, True),
        ("[fd00::5]:9000", "fd00::5", 9000, True),
        ("صور.example", "xn--wgbh1d.example", 80, True),
    ],
)
def test_allowed_hosts(entry: str, host: str, port: int, passes: bool) -> None:
    assert AllowList.parse(hosts=[entry]).has_host(host, port) is passes


@pytest.mark.parametrize(
    "entry", ["", "*", "*.example.com", "http://example.com", "a/b", "me@host", "host:port", "a b"]
)
def test_an_allowed_host_that_cannot_be_read_is_the_operators_mistake(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed host"):
        AllowList.parse(hosts=[entry])


@pytest.mark.parametrize("entry", ["", "internal", "10.0.0.0/33", "10.0.0"])
def test_an_allowed_network_that_cannot_be_read_is_the_operators_mistake(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed network"):
        AllowList.parse(networks=[entry])

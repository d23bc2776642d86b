"""Names whose owner lies: private answers, mixed ones, ones that change from query to query, and none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.hostile.case import URL, Answer, Case, answered, refused, shown
from tests.hostile.house import House
from tests.hostile.internet import DEAD, PUBLIC, PUBLIC_V6, STORE, Answers, late, turning

FORBIDDEN: Final = {
    "loopback": ["127.0.0.1"],
    "loopback-v6": ["::1"],
    "any": ["0.0.0.0"],
    "private": ["10.0.0.1"],
    "home": ["192.168.1.1"],
    "link-local": ["169.254.169.254"],
    "link-local-v6": ["fe80::1"],
    "unique-local": ["fd00::2"],
    "mapped": ["::ffff:127.0.0.1"],
    "compatible": ["::127.0.0.1"],
    "nat64": ["64:ff9b::7f00:1"],
    "sixtofour": ["2002:7f00:1::"],
    "teredo": ["2001:0:7f00:1::"],
    "azure": ["168.63.129.16"],
    "oracle": ["192.0.0.192"],
    "multicast": ["224.0.0.251"],
    "mixed": [PUBLIC, "127.0.0.1"],
    "mixed-v6": [PUBLIC, "::1"],
    "mixed-first": ["10.0.0.1", PUBLIC],
    "mixed-last-of-many": [*(f"93.184.215.{number}" for number in range(100, 130)), "127.0.0.1"],
}
"""Answers of names that are never dialled, not even at their public addresses."""

ZONE: Final[dict[str, Answers | Callable[[int], Answers]]] = {
    **{f"{name}.test": answers for name, answers in FORBIDDEN.items()},
    "metadata.google.internal": ["169.254.169.254"],
    "good.test": [PUBLIC],
    "six.test": [PUBLIC_V6],
    "dead.test": [DEAD],
    "half-dead.test": [DEAD, PUBLIC],
    "elsewhere.test": [PUBLIC],
    "expired.test": [PUBLIC],
    "self-signed.test": [PUBLIC],
    "store.test": [STORE[0]],
    "rebinding.test": turning([PUBLIC], ["127.0.0.1"]),
    "rebinding-by-redirect.test": turning([PUBLIC], ["127.0.0.1"]),
    "nothing.test": None,
    "empty.test": [],
    "late.test": late(30, [PUBLIC]),
    **{f"slow-{number}.test": [PUBLIC] for number in range(100)},
}


def _forbidden(host: str) -> Case:
    return refused(shown(f"http://{host}/red.png"), "invalid_image_url", URL)


def _unknown(host: str) -> Case:
    return refused(shown(f"http://{host}/red.png"), "failed_to_download_image", URL)


def _asked_once(house: House, _: Answer) -> None:
    """A name that would say 127.0.0.1 the second time is asked once, and the answer that was judged is dialled."""
    assert house.internet.names.asked["rebinding.test"] == 1
    assert house.internet.dialled()[-1] == (PUBLIC, 80)


def _dialled(place: tuple[str, int]) -> Callable[[House, Answer], None]:
    def check(house: House, _: Answer) -> None:
        assert house.internet.dialled()[-1] == place

    return check


CASES: Final = {
    **{f"{name}.test": _forbidden(f"{name}.test") for name in FORBIDDEN},
    "metadata.google.internal": _forbidden("metadata.google.internal"),
    "METADATA.Google.Internal.": _forbidden("METADATA.Google.Internal."),
    "full-width letters": _forbidden("\uff4c\uff4f\uff4f\uff50\uff42\uff41\uff43\uff4b.test"),
    "a store's name at another port": _forbidden("store.test"),
    "rebinding between judging and dialling": answered(shown("http://rebinding.test/red.png"), _asked_once),
    "rebinding by redirect": refused(shown("http://rebinding-by-redirect.test/again"), "invalid_image_url", URL),
    "no such name": _unknown("nothing.test"),
    "a name without addresses": _unknown("empty.test"),
    "a name server that takes half a minute": refused(
        shown("http://late.test/red.png"), "failed_to_download_image", URL, waits=True
    ),
    "a public address": answered(shown("http://good.test/red.png"), _dialled((PUBLIC, 80))),
    "a public address, dotted": answered(shown("http://GOOD.test./red.png"), _dialled((PUBLIC, 80))),
    "a port in full-width digits": answered(shown("http://good.test:\uff18\uff10/red.png"), _dialled((PUBLIC, 80))),
    "a public address of version 6": answered(shown("http://six.test/red.png"), _dialled((PUBLIC_V6, 80))),
    "the second address of a host": answered(shown("http://half-dead.test/red.png"), _dialled((PUBLIC, 80))),
    "a public address as it is": answered(shown(f"http://{PUBLIC}/red.png"), _dialled((PUBLIC, 80))),
    "the operator's store": answered(shown("http://store.test:9000/red.png"), _dialled(STORE)),
}

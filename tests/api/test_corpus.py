"""`make corpus` tells files that are read as the reference reads them from all others."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np

from tests.api.house import House
from tests.corpus import __main__ as corpus
from tests.corpus.__main__ import judge, judged
from tests.corpus.reference import Seen, seen
from tests.media_files import FILES, PICTURES, saved
from tests.model import NAME


def test_every_made_up_file_is_read_as_by_the_reference(house: House, tmp_path: Path) -> None:
    for number, make in enumerate(FILES.values()):
        (tmp_path / f"{number:03}").write_bytes(make())
    names = dict(zip((f"{number:03}" for number in range(len(FILES))), FILES, strict=True))
    wrong = [(names[one.file], one) for one in judged(house.http, tmp_path, NAME) if one.fate != "equal"]
    house.engine.requests.clear()  # and with them their pictures
    assert wrong == []


def test_what_neither_reads_is_nobodys_fault(house: House) -> None:
    verdict = judge(house.http, "words.txt", b"hello world", NAME)
    assert (verdict.fate, verdict.is_wrong) == ("read by neither", False)
    assert verdict.detail.startswith("invalid_image_format: ")


def test_what_the_reference_alone_reads_is_told(house: House) -> None:
    verdict = judge(house.http, "a.ppm", saved("PPM"), NAME)
    assert (verdict.fate, verdict.is_wrong) == ("refused", True)


def test_another_size_and_other_pixels_are_told(house: House) -> None:
    data = PICTURES["PNG"]()
    true = seen(data)
    assert true is not None
    assert true.pixels is not None
    for expected, words in (
        (Seen("image", ((96, 160),)), "160x96 for 96x160"),
        (Seen("image", ((160, 96), (1, 1))), "1 pictures for 2"),
        (Seen("image", true.sizes, np.where(true.pixels > 200, 0, true.pixels)), "pixels differ by"),
    ):
        with mock.patch.object(corpus, "seen", return_value=expected):
            verdict = judge(house.http, "x.png", data, NAME)
        assert verdict.fate == "differs"
        assert words in verdict.detail

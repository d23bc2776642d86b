"""What a decode worker does with its jobs, called as it calls it; the process around it is in test_prepare."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from server.core import FrameChoice, PixelBudget
from server.errors import ApiError, ContextLengthExceeded, InvalidFile, InvalidImage, InvalidVideo
from server.media.decoding.patches import patchify
from server.media.limits import WorkLimits
from server.media.workers import work
from server.media.workers.channel import Growing, Octets, sealed_array
from server.media.workers.jobs import ClipJob, Cut, File, Job, PagesJob, PictureJob
from tests.unit.media.preparing import drawn, picture

LIMITS = WorkLimits()


def do(
    kind: type[Job], *files: bytes, base64: bool = False, limits: WorkLimits = LIMITS, **more: object
) -> tuple[list[Cut], Octets]:
    """Do a job on some files: its cuts, and the memory that they lie in."""
    listed = tuple(File(len(file), base64) for file in files)
    job = kind(**{"param": "here", "max_tokens": 10_000, "files": listed, **more})  # type: ignore[arg-type]
    memory = Growing()
    try:
        cuts = work.do(job, memoryview(b"".join(files)), limits, memory)
        return cuts, sealed_array(memory.seal(), sum(cut.patches.size for cut in cuts))
    finally:
        memory.close()


def pdf(*sizes: tuple[int, int]) -> bytes:
    target = io.BytesIO()
    first, *rest = (drawn(width, height, seed) for seed, (width, height) in enumerate(sizes))
    first.save(target, "PDF", save_all=True, append_images=rest, resolution=72)
    return target.getvalue()


def test_a_picture_is_cut() -> None:
    [cut], memory = do(PictureJob, picture(84, 56))
    assert cut.patches.grid_thw == (1, 4, 6)
    assert cut.original_size == (84, 56)
    assert np.array_equal(memory, patchify(np.asarray(drawn(84, 56))[np.newaxis])[0].ravel())


@pytest.mark.parametrize("separator", [b"", b"\n", b"\r\n", b" \t"])
def test_base64_is_decoded_with_or_without_line_breaks(separator: bytes) -> None:
    encoded = base64.b64encode(picture(28, 28))
    wrapped = separator.join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    assert np.array_equal(do(PictureJob, wrapped, base64=True)[1], do(PictureJob, picture(28, 28))[1])


def _letters(encoded: bytes) -> list[bytes]:
    return re.findall(rb"%..|.", encoded)


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("how", ["standard", "of URLs", "escaped", "escaped in part", "escaped in lower case"])
@pytest.mark.parametrize("size", [(28, 28), (29, 28), (28, 30)])
def test_base64_is_decoded_in_every_habit(how: str, padded: bool, lines: bool, size: tuple[int, int]) -> None:
    data = picture(*size)
    encoded = base64.b64encode(data)
    assert b"+" in encoded
    assert b"/" in encoded
    if not padded:
        encoded = encoded.rstrip(b"=")
    match how:
        case "of URLs":
            encoded = encoded.replace(b"+", b"-").replace(b"/", b"_")
        case "escaped":
            encoded = encoded.replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")
        case "escaped in part":
            encoded = encoded.replace(b"+", b"%2B")
        case "escaped in lower case":
            encoded = encoded.replace(b"+", b"%2b").replace(b"=", b"%3d")
    if lines:  # never within an escape
        encoded = b"".join(byte + (b"\n" if place % 25 == 24 else b"") for place, byte in enumerate(_letters(encoded)))
    assert np.array_equal(do(PictureJob, encoded, base64=True)[1], do(PictureJob, data)[1])


@pytest.mark.parametrize(
    "bad", [b"AA==AAAA", b"A===", b"====", b"AAAAA", b"AAA%", b"AAA\0", b"AAA\n=\n=", b"\xff\xff=="]
)
@pytest.mark.parametrize(("kind", "code"), [(PictureJob, "image"), (ClipJob, "video"), (PagesJob, "file")])
def test_what_is_no_base64_is_refused_as_its_kind(bad: bytes, kind: type[Job], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        do(kind, bad, base64=True)
    assert caught.value.code == f"invalid_base64_{code}"
    assert caught.value.param == "here"


def test_frames_become_a_clip() -> None:
    files = [picture(112, 84, seed) for seed in range(3)]
    budget = PixelBudget(resized_height=84, resized_width=112)
    [cut], memory = do(ClipJob, *files, is_file=False, budget=budget, choice=FrameChoice(sample_fps=4.0))
    assert (cut.patches.grid_thw, cut.original_size, cut.fps) == ((2, 6, 8), (112, 84), 4.0)
    frames = np.stack([np.asarray(drawn(112, 84, seed)) for seed in range(3)])
    assert np.array_equal(memory, patchify(frames)[0].ravel())


def test_pages_become_pictures() -> None:
    cuts, memory = do(PagesJob, pdf((280, 140), (140, 280)), dpi=72.0)
    assert [cut.page for cut in cuts] == [1, 2]
    assert [cut.original_size for cut in cuts] == [(280, 140), (140, 280)]
    assert [cut.patches.grid_thw for cut in cuts] == [(1, 10, 20), (1, 20, 10)]
    assert memory.size == sum(cut.patches.size for cut in cuts)


def test_what_takes_more_of_the_prompt_than_is_left_is_refused_before_it_is_resized() -> None:
    large, frames = picture(280, 280), [picture(280, 280, seed) for seed in range(4)]
    fixed = PixelBudget(resized_height=280, resized_width=280)
    for kind, files, more, tokens in (
        (PictureJob, [large], {}, 100),
        (ClipJob, frames, {"is_file": False, "budget": fixed}, 200),
        (PagesJob, [pdf((280, 280), (280, 280))], {"dpi": 72.0}, 200),
    ):
        assert do(kind, *files, max_tokens=tokens, **more)
        with pytest.raises(ContextLengthExceeded):
            do(kind, *files, max_tokens=tokens - 1, **more)


@pytest.mark.parametrize(
    ("kind", "error"), [(PictureJob, InvalidImage), (ClipJob, InvalidVideo), (PagesJob, InvalidFile)]
)
@pytest.mark.parametrize("data", [b"", b"junk", b"<html>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4", b"\0\0\0\x18ftypmp42"])
def test_junk_is_refused_as_its_kind(kind: type[Job], error: type[ApiError], data: bytes) -> None:
    with pytest.raises(error) as caught:
        do(kind, data)
    assert caught.value.param == "here"


def test_other_sides_of_patches() -> None:
    target = io.BytesIO()
    Image.new("RGB", (128, 64)).save(target, "PNG")
    pixels = type(LIMITS.pixels)(factor=32, patch=16)
    [cut], memory = do(PictureJob, target.getvalue(), limits=WorkLimits(pixels=pixels))
    assert cut.patches.grid_thw == (1, 4, 8)
    assert memory.size == 32 * 3 * 2 * 16 * 16

"""What a request's media will take in tokens, guessed before anything is opened."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server.core import ClipSource, DocumentSource, PictureSource, PixelBudget, Source
from server.errors import ApiError
from server.media.decoding.patches import patchify
from server.media.estimate import HEAD_BYTES, UNKNOWN_PAGES, UNKNOWN_PIXELS, decode_memory, estimated_tokens
from server.media.limits import WorkLimits
from server.media.pixels import PixelLimits, picture_tokens, target_size
from server.media.workers.jobs import ClipJob, File, PagesJob, PictureJob
from tests.media_files import heic, saved
from tests.unit.media.preparing import data_url, document, picture, source

WORK = WorkLimits()
UNKNOWN = WORK.tokens(UNKNOWN_PIXELS)


def estimate(*sources: Source, work: WorkLimits = WORK) -> int:
    return estimated_tokens(sources, work)


def jpeg(width: int, height: int, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height)).save(target, "JPEG", **options)
    return target.getvalue()


def real_tokens(width: int, height: int, budget: PixelBudget, limits: PixelLimits = WORK.pixels) -> int:
    """Of a picture as it is really cut."""
    import numpy as np

    rows, columns = target_size(height, width, budget, limits)
    _, grid = patchify(np.zeros((1, rows, columns, 3), np.uint8), limits.patch)
    return picture_tokens(grid, limits.merge)


def test_nothing_takes_nothing() -> None:
    assert estimate() == 0


@settings(max_examples=50)
@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.sampled_from((PixelBudget(), PixelBudget(max_pixels=50_176), PixelBudget(None, None, 280, 140))),
    st.booleans(),
)
def test_a_picture_that_came_along_is_guessed_exactly(
    width: int, height: int, budget: PixelBudget, is_jpeg: bool
) -> None:
    data = jpeg(width, height) if is_jpeg else picture(width, height)
    try:
        expected = real_tokens(width, height, budget)
    except ApiError:
        expected = 0
    guess = estimate(PictureSource(data_url(data), "here", budget))
    assert guess == expected or (expected == 0 and guess > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_a_picture_upright_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert estimate(source(data_url(jpeg(300, 100, exif=exif)))) == real_tokens(100, 300, PixelBudget())


def test_a_photograph_with_much_metadata_is_still_guessed_exactly() -> None:
    data = jpeg(640, 480, icc_profile=b"x" * (HEAD_BYTES * 2 // 3))
    assert estimate(source(data_url(data))) == real_tokens(640, 480, PixelBudget())


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/picture.png",
        "file:///picture.png",
        "data:image/gif;base64,R0lGODlh",
        "data:image/png;base64,",
        "data:image/png;base64",
        "data:image/png;base64,iVBORw0KGgo=",
        "data:image/png;base64,مرحبا",
        "data:" + "x" * 1000 + ",iVBORw0KGgo=",
        "",
        ",",
    ],
)
def test_what_is_not_here_or_does_not_tell_is_guessed_as_a_common_picture(url: str) -> None:
    assert estimate(source(url)) == UNKNOWN
    assert estimate(source(url, max_pixels=784_000)) == 1000


def test_no_picture_is_guessed_larger_than_the_operator_allows() -> None:
    work = WorkLimits(PixelLimits(max_pixels=78_400))
    assert estimate(source("https://example.org/"), work=work) == 100
    assert estimate(source(data_url(picture(2000, 2000))), work=work) <= 100


def test_clips_lists_of_frames_and_documents_are_more_than_a_picture() -> None:
    frames = ClipSource(("https://example.org/",) * 10, "here", is_file=False)
    assert estimate(frames) == UNKNOWN * 5
    clip = ClipSource(("https://example.org/",), "here", is_file=True)
    assert UNKNOWN < estimate(clip) <= WORK.tokens(WORK.clips.total_pixels)
    assert estimate(document(b"%PDF")) == UNKNOWN * UNKNOWN_PAGES


def test_all_that_a_request_holds_is_added_up() -> None:
    sources = (source(data_url(picture())), source("https://example.org/"), DocumentSource("data:,", "here"))
    assert estimate(*sources) == sum(estimate(one) for one in sources)


@given(st.text())
def test_no_url_breaks_it(url: str) -> None:
    assert estimate(source(url)) > 0


@given(
    st.binary(max_size=300), st.sampled_from((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xc0\0\x11\x08"))
)
def test_no_bytes_break_it(data: bytes, start: bytes) -> None:
    url = "data:image/png;base64," + base64.b64encode(start + data).decode()
    assert 0 < estimate(source(url)) <= WORK.tokens(WORK.pixels.hard_max_pixels)


# ---- Memory of decoding

MOST = 2 << 30


def memory_of(content: bytes, *, encoded: bool = False, escaped: bool = False) -> int:
    data = base64.b64encode(content) if encoded else content
    if escaped:
        data = data.replace(b"/", b"\\/").replace(b"+", b"\\u002B")
    job = PictureJob("p", 100, files=(File(len(data), encoded, escaped),))
    return decode_memory(job, [data], MOST)


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("encoded", [False, True])
def test_the_memory_of_a_picture_follows_from_its_header(encoded: bool, escaped: bool) -> None:
    """However small the file: ten thousand lines of nothing are a hundred megapixels."""
    small, large = png(100, 100), png(10_000, 10_000)
    escaped = escaped and encoded
    assert memory_of(small, encoded=encoded, escaped=escaped) < 32 << 20
    assert 1 << 30 < memory_of(large, encoded=encoded, escaped=escaped) < MOST


def png(width: int, height: int) -> bytes:
    target = io.BytesIO()
    Image.new("1", (width, height)).save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize("content", [b"", b"nonsense", png(100, 100)[:10]])
def test_what_says_nothing_of_itself_may_take_all_that_a_worker_may(content: bytes) -> None:
    assert memory_of(content) == MOST
    for job in (ClipJob("p", 100, files=(File(5, False),)), PagesJob("p", 100, files=(File(5, False),))):
        assert decode_memory(job, [b"hello"], MOST) == MOST


def test_no_picture_may_take_more_than_a_worker_may() -> None:
    job = PictureJob("p", 100, files=(File(100, False),))
    assert decode_memory(job, [png(10_000, 10_000)], 1 << 20) == 1 << 20


MEASURE = """
import sys
from pathlib import Path
from server.media.decoding.decode import open_picture
from server.media.limits import DecodeLimits

def peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

for name in sys.argv[1:]:
    data = Path(name).read_bytes()
    open_picture(data, DecodeLimits()).pixels(28, 28)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    open_picture(data, DecodeLimits()).pixels(28, 28)
    print(peak() - before)
"""


def test_no_decoder_takes_more_than_is_set_aside_for_it(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").convert("RGB").resize((2000, 1500))
    kinds = {
        "JPEG": saved("JPEG", image.convert("CMYK")),
        "PNG": saved("PNG", image.convert("RGBA")),
        "WebP": saved("WEBP", image.convert("RGBA")),
        "AVIF": saved("AVIF", image, speed=10),
        "HEIC": heic(image, quality=10),
        "BMP": saved("BMP", image),
        "GIF": saved("GIF", image.quantize(64)),
    }
    for kind, data in kinds.items():
        (tmp_path / kind).write_bytes(data)
    command = [sys.executable, "-c", MEASURE, *(str(tmp_path / kind) for kind in kinds)]
    taken = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120).stdout.split()
    for (kind, data), size in zip(kinds.items(), taken, strict=True):
        assert int(size) <= memory_of(data), kind

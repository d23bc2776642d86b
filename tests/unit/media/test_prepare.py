"""From what a client names to patches: order, sharing, limits, and the one error that a client is told."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest
from PIL import Image

import server.media.prepare
from server.core import Picture, PictureSource, PixelBudget
from server.errors import ApiError, BadRequest, ContextLengthExceeded, InvalidImage
from server.media.decode import DecodeLimits, decode_picture
from server.media.fetch import Fetcher
from server.media.pixels import PixelLimits, patchify
from server.media.prepare import MediaLimits, Preparer, picture_digest, prepare_picture

pytestmark = pytest.mark.timeout(20)

AIN = PixelLimits()


def picture(width: int = 100, height: int = 60, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def source(url: str, index: int = 0, **budget: int) -> PictureSource:
    return PictureSource(url, f"messages[0].content[{index}].image_url.url", PixelBudget(**budget))


def prepare_one(data: bytes, tenant: str = "", **budget: int) -> Picture:
    return prepare_picture(data, PixelBudget(**budget), AIN, DecodeLimits(), "here", tenant)


class Web(Fetcher):
    """A fetcher whose web is a table of pages: bytes, an error, or a call that gives one of them."""

    def __init__(self, **pages: bytes | Exception | Callable[[], Any]) -> None:
        super().__init__()
        self.pages = pages
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    async def get(self, url: str, *, param: str | None = None, spend: Callable[[int], None] | None = None) -> bytes:
        name = url.removeprefix("http://")
        self.asked.append(name)
        page = self.pages[name]
        try:
            if callable(page):
                page = await page()
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(name)
            raise
        if isinstance(page, Exception):
            raise page
        assert isinstance(page, bytes)
        if spend is not None:
            spend(len(page))
        return page


async def refusal(preparer: Preparer, *sources: PictureSource) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await preparer.prepare(sources, "tenant")
    assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, Exception)
    return caught.value


# ---- One picture ------------------------------------------------------------------------------------


def test_a_picture_of_the_right_size_passes_unchanged() -> None:
    data = picture(84, 56)
    made = prepare_one(data)
    assert made.grid_thw == (1, 4, 6)
    assert made.original_size == made.resized_size == (84, 56)
    assert np.array_equal(made.patches, patchify(np.asarray(Image.open(io.BytesIO(data))))[0])


@pytest.mark.parametrize(("width", "height"), [(100, 60), (31, 29), (1000, 700), (5, 5)])
def test_pixels_are_those_of_qwen_vl_utils(width: int, height: int) -> None:
    vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
    data = picture(width, height)
    for budget in ({}, {"max_pixels": 50_000}, {"resized_height": 280, "resized_width": 420}):
        expected = vision_process.fetch_image({"image": Image.open(io.BytesIO(data)), **budget})
        made = prepare_one(data, **budget)
        assert made.resized_size == expected.size
        assert made.original_size == (width, height)
        assert np.array_equal(made.patches, patchify(np.asarray(expected))[0])


def test_an_upright_picture_is_measured_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    target = io.BytesIO()
    Image.new("RGB", (280, 56)).save(target, "JPEG", exif=exif)
    made = prepare_one(target.getvalue())
    assert made.original_size == made.resized_size == (56, 280)


def test_equal_digests_mean_equal_patches() -> None:
    data = picture()
    made = prepare_one(data)
    assert len(made.digest) == 64
    assert made.digest == prepare_one(data).digest == prepare_one(data, max_pixels=12_000_000).digest
    others = [
        prepare_one(data, tenant="another"),
        prepare_one(data, max_pixels=3136),
        prepare_one(data, resized_height=280, resized_width=280),
        prepare_one(picture(seed=1)),
    ]
    assert len({made.digest, *(other.digest for other in others)}) == 5


def test_no_part_of_a_digest_can_pass_for_another() -> None:
    size = (28, 28)
    assert picture_digest(b"c", size, "ab") != picture_digest(b"bc", size, "a")
    assert picture_digest(b"|28x28|x", size, "") != picture_digest(b"x", size, "|28x28|")
    assert picture_digest(b"", (281, 28), "") != picture_digest(b"", (28, 128), "")


def test_errors_carry_where_the_picture_stands() -> None:
    for data, budget in ((b"junk", {}), (picture(), {"max_pixels": 1}), (picture(1, 201), {})):
        with pytest.raises(BadRequest) as caught:
            prepare_one(data, **budget)
        assert caught.value.param == "here"


# ---- Many pictures ----------------------------------------------------------------------------------


async def test_pictures_come_in_the_order_of_the_request() -> None:
    async def late() -> bytes:
        await anyio.sleep(0.05)
        return picture(56, 56)

    preparer = Preparer(AIN, fetcher=Web(late=late, soon=picture(84, 84)))
    made = await preparer.prepare(
        [source("http://late"), source(data_url(picture(112, 112)), 1), source("http://soon", 2)], "tenant"
    )
    assert [one.resized_size[0] for one in made] == [56, 112, 84]
    await preparer.aclose()


async def test_no_pictures_are_no_work() -> None:
    assert await Preparer(AIN).prepare([], "tenant") == []


async def test_a_picture_named_twice_is_fetched_and_prepared_once() -> None:
    web = Web(a=picture(), b=picture(seed=1))
    made = await Preparer(AIN, fetcher=web).prepare(
        [source("http://a"), source("http://b", 1), source("http://a", 2), source("http://a", 3, max_pixels=3136)], "t"
    )
    assert sorted(web.asked) == ["a", "b"]
    assert made[0] is made[2]
    assert made[3].resized_size < made[0].resized_size


async def test_tenants_never_share_a_digest() -> None:
    preparer = Preparer(AIN)
    url = data_url(picture())
    digests = {(await preparer.prepare([source(url)], tenant))[0].digest for tenant in ("", "a", "b")}
    assert len(digests) == 3


# ---- Limits -----------------------------------------------------------------------------------------


async def test_too_many_pictures_are_refused_unopened() -> None:
    error = await refusal(Preparer(AIN, MediaLimits(max_pictures=2)), *(source("nonsense", i) for i in range(3)))
    assert error.param == "messages[0].content[2].image_url.url"
    assert "3 pictures" in error.message


async def test_everything_that_can_be_refused_early_is_refused_before_the_first_fetch() -> None:
    web = Web(a=picture())
    for bad in (source("/etc/passwd", 1), source("http://a", 1, max_pixels=1), source("data:image/png;base64,A", 1)):
        error = await refusal(Preparer(AIN, fetcher=web), source("http://a"), bad)
        assert error.param == "messages[0].content[1].image_url.url"
    assert web.asked == []


async def test_one_picture_may_not_be_too_large() -> None:
    error = await refusal(Preparer(AIN, MediaLimits(max_picture_bytes=100)), source(data_url(picture())))
    assert error.code == "image_file_too_large"


async def test_all_pictures_together_may_not_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(server.media.prepare, "prepare_picture", lambda data, *_: decoded.append(data))
    first, second = picture(), picture(seed=1)
    limits = MediaLimits(max_request_bytes=len(first) + len(second) - 1)
    inline = await refusal(Preparer(AIN, limits), source(data_url(first)), source(data_url(second), 1))
    assert inline.code == "image_file_too_large"
    assert inline.param == "messages[0].content[1].image_url.url"
    assert decoded == []
    fetched = await refusal(
        Preparer(AIN, limits, fetcher=Web(b=second)), source(data_url(first)), source("http://b", 1)
    )
    assert fetched.code == "image_file_too_large"
    assert "together" in fetched.message


async def test_a_picture_named_twice_counts_its_bytes_once() -> None:
    url = data_url(picture())
    limits = MediaLimits(max_request_bytes=len(picture()))
    assert len(await Preparer(AIN, limits).prepare([source(url), source(url, 1)], "t")) == 2


async def test_pictures_that_cannot_fit_the_context_are_refused() -> None:
    url = data_url(picture(280, 280))  # 100 tokens
    assert await Preparer(AIN, MediaLimits(max_request_tokens=200)).prepare([source(url)] * 2, "t")
    error = await refusal(Preparer(AIN, MediaLimits(max_request_tokens=199)), source(url), source(url))
    assert isinstance(error, ContextLengthExceeded)


async def test_decoded_pixels_are_limited() -> None:
    error = await refusal(Preparer(AIN, MediaLimits(max_decoded_pixels=99)), source(data_url(picture(10, 10))))
    assert error.code == "image_too_large"


async def test_fetching_can_be_switched_off() -> None:
    web = Web(a=picture())
    error = await refusal(Preparer(AIN, MediaLimits(remote=False), fetcher=web), source("http://a"))
    assert error.code == "invalid_image_url"
    assert web.asked == []


async def test_only_so_many_pictures_are_decoded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def counted(*arguments: Any, **named: Any) -> Image.Image:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.02)
        with lock:
            running -= 1
        return decode_picture(*arguments, **named)

    monkeypatch.setattr(server.media.prepare, "decode_picture", counted)
    preparer = Preparer(AIN, MediaLimits(decode_threads=2))
    sources = [source(data_url(picture(28, 28, seed=i)), i) for i in range(4)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(preparer.prepare, sources, "a")
        tasks.start_soon(preparer.prepare, sources, "b")
    assert most == 2


@pytest.mark.parametrize(
    "wrong", [{"max_pictures": -1}, {"max_picture_bytes": 0}, {"max_request_tokens": 0}, {"decode_threads": 0}]
)
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limits"):
        MediaLimits(**wrong)


# ---- Failures ---------------------------------------------------------------------------------------


async def test_the_first_failure_stops_the_rest_and_comes_alone() -> None:
    web = Web(slow=anyio.sleep_forever, bad=InvalidImage("no", code="failed_to_download_image", param="here"))
    preparer = Preparer(AIN, fetcher=web)
    with anyio.fail_after(5):
        error = await refusal(preparer, source("http://slow"), source("http://bad", 1), source(data_url(picture()), 2))
    assert error.message == "no"
    assert web.cancelled == ["slow"]


async def test_several_failures_are_still_one() -> None:
    broken = [source(data_url(b"junk %d" % i), i) for i in range(4)]
    error = await refusal(Preparer(AIN), *broken)
    assert error.code == "invalid_image_format"


async def test_a_mistake_of_ours_is_not_dressed_as_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    web = Web(a=RuntimeError("ours"))
    with pytest.raises(RuntimeError, match="ours"):
        await Preparer(AIN, fetcher=web).prepare([source("http://a")], "t")


async def test_cancelling_stops_the_fetches() -> None:
    web = Web(slow=anyio.sleep_forever)
    with anyio.move_on_after(0.05) as scope:
        await Preparer(AIN, fetcher=web).prepare([source("http://slow")], "t")
    assert scope.cancelled_caught
    assert web.cancelled == ["slow"]

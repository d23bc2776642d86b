"""From what a client names to patches: order, sharing, limits, and the one error that a client is told."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from dataclasses import replace
from pathlib import Path

import anyio
import numpy as np
import pytest
from PIL import Image

from server.admission.bodies import BodyBudget
from server.core import Clip, PixelBudget, Source
from server.errors import ApiError, BadRequest, ContextLengthExceeded, InvalidImage, TooManyBodies
from server.media.decoding.decode import DecodeLimits
from server.media.decoding.patches import patchify
from server.media.limits import RequestLimits, WorkLimits
from tests.fuzz import pdf_files
from tests.unit.media.preparing import Room, Web, data_url, document, drawn, frames, picture, room, source, where

pytestmark = pytest.mark.timeout(120)


async def refusal(there: Room, *sources: Source) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await there.open(*sources)
    return caught.value


# ---- One picture ------------------------------------------------------------------------------------


async def test_a_picture_of_the_right_size_passes_unchanged() -> None:
    data = picture(84, 56)
    async with room() as there:
        [made] = await there.pictures(source(data_url(data)))
    assert made.grid_thw == (1, 4, 6)
    assert made.original_size == made.resized_size == (84, 56)
    assert np.array_equal(made.patches, patchify(np.asarray(Image.open(io.BytesIO(data)))[np.newaxis])[0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_pixels_are_those_of_qwen_vl_utils_to_two_levels(kind: str) -> None:
    vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
    async with room(work=WorkLimits(decode=DecodeLimits(scaled_decoding=False))) as there:
        for width, height in ((100, 60), (31, 29), (1000, 700), (5, 5)):
            data = picture(width, height, kind=kind)
            for budget in ({}, {"max_pixels": 50_000}, {"resized_height": 280, "resized_width": 420}):
                expected = vision_process.fetch_image({"image": Image.open(io.BytesIO(data)), **budget})
                [made] = await there.pictures(source(data_url(data), **budget))
                assert made.resized_size == expected.size
                assert made.original_size == (width, height)
                reference = patchify(np.asarray(expected)[np.newaxis])[0]
                assert np.abs(made.patches.astype(int) - reference).max() <= 2


async def test_an_upright_picture_is_measured_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    target = io.BytesIO()
    Image.new("RGB", (280, 56)).save(target, "JPEG", exif=exif)
    async with room() as there:
        [made] = await there.pictures(source(data_url(target.getvalue())))
    assert made.original_size == made.resized_size == (56, 280)


async def test_base64_may_be_wrapped_in_lines() -> None:
    url = data_url(picture(280, 280))
    wrapped = url[:100] + "\r\n".join(url[start : start + 76] for start in range(100, len(url), 76))
    async with room() as there:
        first, second = await there.pictures(source(url), source(wrapped, 1))
    assert np.array_equal(first.patches, second.patches)


# ---- Clips ------------------------------------------------------------------------------------------


async def test_a_list_of_pictures_becomes_a_clip() -> None:
    pictures = [drawn(112, 84, seed) for seed in range(3)]
    urls = [data_url(picture(112, 84, seed)) for seed in range(3)]
    async with room() as there:
        [made] = await there.pictures(frames(*urls, budget=PixelBudget(resized_height=84, resized_width=112)))
    assert isinstance(made, Clip)
    assert made.grid_thw == (2, 6, 8)
    assert made.fps == 2.0
    expected, _ = patchify(np.stack([np.asarray(one) for one in pictures]))
    assert np.array_equal(made.patches, expected)


async def test_a_frame_that_cannot_be_read_is_named() -> None:
    async with room() as there:
        for bad, code in (("junk", "invalid_image_url"), (data_url(b"junk"), "invalid_image_format")):
            error = await refusal(there, frames(data_url(picture()), bad))
            assert (error.code, error.param) == (code, "messages[0].content[0].video[1]")


# ---- Many pictures ----------------------------------------------------------------------------------


async def test_pictures_come_in_the_order_of_the_request() -> None:
    async def late() -> bytes:
        await anyio.sleep(0.05)
        return picture(56, 56)

    async with room(web=Web(late=late, soon=picture(84, 84))) as there:
        made = await there.pictures(
            source("http://late"), source(data_url(picture(112, 112)), 1), source("http://soon", 2)
        )
    assert [one.resized_size[0] for one in made] == [56, 112, 84]


async def test_nothing_to_open_is_no_work() -> None:
    async with room(start=False) as there:
        assert await there.open() == []


async def test_a_url_named_twice_is_fetched_once() -> None:
    async with room(web=Web(a=picture(), b=picture(seed=1))) as there:
        made = await there.pictures(
            source("http://a"), source("http://b", 1), source("http://a", 2), source("http://a", 3, max_pixels=3136)
        )
    assert sorted(there.web.asked) == ["a", "b"]
    assert made[0].digest == made[2].digest
    assert made[3].resized_size < made[0].resized_size


async def test_the_same_picture_at_the_same_time_is_decoded_once() -> None:
    url = data_url(picture())
    async with room() as there:
        made = await asyncio.gather(*(there.pictures(source(url)) for _ in range(5)))
        assert there.reading("ain_media_jobs") == 1
        assert all(one[0] is made[0][0] for one in made)


# ---- The cache --------------------------------------------------------------------------------------


async def test_the_same_picture_in_a_later_request_is_not_decoded_again() -> None:
    url = data_url(picture())
    async with room() as there:
        first = await there.pictures(source(url))
        assert await there.pictures(source(url, 1)) == first
        assert there.reading("ain_media_jobs") == 1
        assert there.reading("ain_media_cache_hits", "prepared") == 1
        assert there.reading("ain_media_cache_bytes", "prepared") == first[0].patches.nbytes


async def test_another_budget_or_tenant_is_another_picture() -> None:
    url = data_url(picture())
    async with room() as there:
        made = [
            *await there.pictures(source(url)),
            *await there.pictures(source(url, max_pixels=3136)),
            *await there.pictures(source(url, resized_height=280, resized_width=280)),
            *await there.pictures(source(url), tenant="another"),
            *await there.pictures(source(data_url(picture(seed=1)))),
        ]
        assert there.reading("ain_media_cache_hits", "prepared") == 0
    assert len({one.digest for one in made}) == 5


async def test_a_worker_that_sees_no_files_has_fonts_all_the_same() -> None:
    """Whether it has a root of its own or may only open nothing: that is for the kernel to allow."""
    note = b"<</Type/Annot/Subtype/FreeText/Rect[9 9 189 90]/F 4/DA(/Helv 40 Tf 0 g)/Contents %b>>"
    pages = {
        text: pdf_files.document(b"", page=b"/Annots[10 0 R]", more=[note % text])
        for text in (b"<feff06450631062d06280627>", b"<feffd80cdc00>", b"(Hello)")
    }
    large = pdf_files.document(b"", page=b"/UserUnit 2")
    async with room() as there:
        arabic, hieroglyph, latin = [(await there.pictures(document(data)))[0] for data in pages.values()]
        assert (await there.pictures(document(large)))[0].original_size == (833, 417)
    assert [bool(page.warnings) for page in (arabic, hieroglyph, latin)] == [False, True, False]
    dark = [int((page.patches < 100).sum()) for page in (arabic, hieroglyph, latin)]
    assert dark[0] > dark[1] + 1000
    assert dark[2] > dark[1] + 1000


async def test_a_document_is_prepared_with_its_password_alone() -> None:
    data = pdf_files.encrypted(b"1 0 0 rg 0 0 200 100 re f", b"open")
    async with room() as there:
        [page] = await there.pictures(replace(document(data), password="open"))
        assert page.original_size == (417, 208)
        for password in (None, "other"):
            assert "password" in (await refusal(there, replace(document(data), password=password))).message


async def test_a_failure_is_not_kept() -> None:
    async with room() as there:
        for _ in range(2):
            await refusal(there, source(data_url(picture()[:60])))
        assert there.reading("ain_media_jobs") == 2


# ---- Limits -----------------------------------------------------------------------------------------


async def test_too_many_pictures_are_refused_unopened() -> None:
    async with room(RequestLimits(max_pictures=2), start=False) as there:
        error = await refusal(there, *(source("nonsense", i) for i in range(3)))
    assert error.param == where(2)
    assert "3 pictures" in error.message


async def test_everything_that_can_be_refused_early_is_refused_before_the_first_fetch() -> None:
    async with room(web=Web(a=picture()), start=False) as there:
        for bad in (
            source("/etc/passwd", 1),
            source("http://a", 1, max_pixels=1),
            source("data:image/png;base64,A", 1),
        ):
            error = await refusal(there, source("http://a"), bad)
            assert error.param == where(1)
        assert there.web.asked == []


async def test_one_picture_may_not_be_too_large() -> None:
    limits = RequestLimits(max_bytes={"image": 100, "video": 100, "file": 100})
    async with room(limits, start=False) as there:
        error = await refusal(there, source(data_url(picture())))
    assert error.code == "image_file_too_large"


async def test_all_pictures_together_may_not_be_too_large() -> None:
    first, second = picture(), picture(seed=1)
    limits = RequestLimits(max_request_bytes=len(first) + len(second) - 1)
    async with room(limits, web=Web(b=second)) as there:
        inline = await refusal(there, source(data_url(first)), source(data_url(second), 1))
        assert (inline.code, inline.param) == ("image_file_too_large", where(1))
        assert there.reading("ain_media_jobs") == 0
        fetched = await refusal(there, source(data_url(first)), source("http://b", 1))
        assert fetched.code == "image_file_too_large"
        assert "together" in fetched.message


async def test_pictures_that_cannot_fit_the_context_are_refused() -> None:
    url = data_url(picture(280, 280))  # 100 tokens
    async with room(RequestLimits(max_tokens=200)) as there:
        assert await there.open(source(url), source(url))
    async with room(RequestLimits(max_tokens=199)) as there:
        assert isinstance(await refusal(there, source(url), source(url, 1)), ContextLengthExceeded)
    async with room(RequestLimits(max_tokens=99)) as there:
        assert isinstance(await refusal(there, source(url)), ContextLengthExceeded)


async def test_decoded_pixels_are_limited() -> None:
    async with room(work=WorkLimits(decode=DecodeLimits(max_pixels=99))) as there:
        error = await refusal(there, source(data_url(picture(10, 10))))
    assert error.code == "image_too_large"


async def test_fetching_can_be_switched_off() -> None:
    async with room(RequestLimits(remote=False), web=Web(a=picture()), start=False) as there:
        error = await refusal(there, source("http://a"))
    assert error.code == "invalid_image_url"
    assert there.web.asked == []


async def test_requests_wait_for_their_share_of_the_memory() -> None:
    """Room for one of two pictures: the second begins when the first has been given away."""
    small = {"max_pixels": 280 * 280}
    one, other = source(data_url(picture()), **small), source(data_url(picture(seed=1)), **small)
    async with room(memory=280 * 280 * 6, cache=0) as there:
        async with there.preparer.opened([one], "t") as opened:
            held = opened[0].pictures[0].patches.nbytes
            assert there.reading("ain_media_memory_bytes") == held
            second = asyncio.create_task(there.pictures(other))
            await asyncio.sleep(0.1)
            assert there.reading("ain_media_jobs") == 1
        await second
        assert there.reading("ain_media_memory_bytes") == 0


async def test_decoding_waits_for_its_share_of_the_memory_too() -> None:
    """However many workers there are: two of a megapixel each do not fit at once into 60 MiB."""
    content = [picture(1000, 1000, seed) for seed in range(3)]
    async with room(workers=2, decoding=60 << 20) as house:
        most = 0.0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, house.reading("ain_media_workers_busy"))
                await anyio.sleep(0.001)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await house.pictures(*(source(data_url(one)) for one in content))
            tasks.cancel_scope.cancel()
        assert most == 1
        assert house.reading("ain_decode_memory_bytes") == 0


async def test_folders_that_the_operator_opened_are_read(tmp_path: Path) -> None:
    (tmp_path / "a picture.png").write_bytes(picture(56, 56))
    async with room(folders=[tmp_path]) as there:
        [made] = await there.pictures(source(f"file://{tmp_path}/a%20picture.png"))
        assert made.resized_size == (56, 56)
        error = await refusal(there, source("file:///etc/hostname"))
        assert error.code == "image_file_not_found"
    async with room(start=False) as there:
        assert (await refusal(there, source(f"file://{tmp_path}/a%20picture.png"))).code == "invalid_image_url"


# ---- Failures ---------------------------------------------------------------------------------------


async def test_errors_carry_where_the_picture_stands() -> None:
    async with room() as there:
        for url, budget in ((data_url(b"junk"), {}), (data_url(picture()), {"max_pixels": 1}), ("data:,", {})):
            error = await refusal(there, source(url, 7, **budget))
            assert isinstance(error, BadRequest)
            assert error.param == where(7)


async def test_the_first_failure_stops_the_rest_and_comes_alone() -> None:
    web = Web(slow=anyio.sleep_forever, bad=InvalidImage("no", code="failed_to_download_image", param="here"))
    async with room(web=web) as there:
        with anyio.fail_after(5):
            error = await refusal(there, source("http://slow"), source("http://bad", 1), source(data_url(picture()), 2))
    assert error.message == "no"
    assert web.cancelled == ["slow"]


async def test_several_failures_are_still_one() -> None:
    async with room(workers=2) as there:
        error = await refusal(there, *(source(data_url(b"junk %d" % i), i) for i in range(4)))
    assert error.code == "invalid_image_format"


async def test_a_mistake_of_ours_is_not_dressed_as_the_clients() -> None:
    async with room(web=Web(a=RuntimeError("ours"))) as there:
        with pytest.raises(RuntimeError, match="ours"):
            await there.open(source("http://a"))


async def test_cancelling_stops_the_fetches() -> None:
    web = Web(slow=anyio.sleep_forever)
    async with room(web=web) as there:
        with anyio.move_on_after(0.05) as scope:
            await there.open(source("http://slow"))
        assert scope.cancelled_caught
        await asyncio.sleep(0.01)
        assert web.cancelled == ["slow"]
        assert there.reading("ain_media_memory_bytes") == 0


async def test_a_worker_that_is_killed_is_replaced_and_the_job_done_again() -> None:
    async with room() as there:
        [pid] = there.preparer.pool.pids
        os.kill(pid, signal.SIGSTOP)
        job = asyncio.create_task(there.pictures(source(data_url(picture()))))
        while there.reading("ain_media_workers_busy") == 0:  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        assert len(await job) == 1
        assert there.reading("ain_media_workers_lost", "died") == 1


async def test_a_job_that_takes_too_long_is_the_files_fault() -> None:
    async with room(seconds=0.5) as there:
        [pid] = there.preparer.pool.pids
        os.kill(pid, signal.SIGSTOP)
        error = await refusal(there, source(data_url(picture())))
    assert error.code == "image_parse_error"
    assert "longer than 0.5 seconds" in error.message


async def test_a_picture_that_needs_more_memory_than_a_worker_has_is_refused() -> None:
    target = io.BytesIO()
    Image.new("RGB", (9000, 9000)).save(target, "PNG")
    async with room(worker_memory=150 << 20) as there:
        error = await refusal(there, source(data_url(target.getvalue())))
        assert error.code == "image_too_large"
        assert len(await there.pictures(source(data_url(picture())))) == 1


async def test_what_is_fetched_counts_among_the_bodies_until_it_is_decoded() -> None:
    held = BodyBudget(1 << 20, 1 << 20)
    seen: list[int] = []
    data = picture()

    async def page() -> bytes:
        seen.append(held.held)
        return data

    async with room(web=Web(a=page, b=page), held=held) as there:
        async with there.preparer.opened([source("http://a"), source("http://b", 1)], "tenant"):
            assert held.held == 0
        assert held.held == 0
    assert max(seen) <= len(data)


async def test_a_fetch_stops_where_there_is_no_memory_for_it() -> None:
    held = BodyBudget(1000, 1000)
    held.take(900, "another")
    async with room(web=Web(a=bytes(500)), held=held) as there:
        assert isinstance(await refusal(there, source("http://a")), TooManyBodies)
    assert held.held == 900

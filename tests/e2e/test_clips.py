"""Clips and documents: the model sees the frames and pages that were asked for, in their order."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from server.demo import questions
from server.demo.drawing import Clip, draw_clip
from server.demo.phrases import LANGUAGES, Language, describe_motion
from server.demo.pictures import text_sample
from tests.e2e.asking import Client, Part, data_url, encoded, image, text
from tests.e2e.conftest import ImageHost
from tests.e2e.marking import Miss, Question, ask_together, require

pytestmark = pytest.mark.e2e

SEED = 11_003
SIDE = 168
FITTING = {"resized_height": SIDE, "resized_width": SIDE}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def moving(rng: random.Random, frames: int = 4) -> Clip:
    return draw_clip(rng, (SIDE, SIDE), frames)


def listed(frames: Sequence[Image.Image], **controls: object) -> Part:
    """A clip as qwen-vl-utils' users write it when they have its frames."""
    return {"type": "video", "video": [data_url(encoded(frame, "PNG"), "image/png") for frame in frames], **controls}


def filmed(frames: Sequence[Image.Image], form: str = "mp4", codec: str = "libx264", fps: int = 2) -> bytes:
    """The frames as a film file, as good as it gets."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as film:
        stream = film.add_stream(codec, rate=Fraction(fps), options={"crf": "4", "b": "4M"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(frame), format="rgb24")))
        film.mux(stream.encode(None))
    return buffer.getvalue()


def misses(client: Client, language: Language, count: int, part: object) -> list[Miss]:
    """Ask about `count` clips, each made into a content part by `part`."""
    rng = random.Random(f"{SEED}/{language}")
    asked = []
    for _ in range(count):
        clip = moving(rng)
        right = describe_motion(clip.kind, clip.colour, clip.direction, language)
        asked.append(Question([part(clip.frames), text(questions.WATCH[language][0])], right))  # type: ignore[operator]
    return ask_together(client, asked)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_list_of_frames_is_seen_as_a_clip(client: Client, language: Language) -> None:
    require(0.9, misses(client, language, 10, lambda frames: listed(frames, **FITTING)), 10, f"{SEED}/{language}")


@pytest.mark.parametrize(("form", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9")])
def test_a_film_is_seen(client: Client, form: str, codec: str) -> None:
    def part(frames: Sequence[Image.Image]) -> Part:
        url = data_url(filmed(frames, form, codec), f"video/{form}")
        return {"type": "video_url", "video_url": {"url": url}, "nframes": 4, **FITTING}

    require(0.85, misses(client, "en", 8, part), 8, f"{SEED}/{form}")


def test_a_film_is_fetched(client: Client, image_host: ImageHost) -> None:
    clip = moving(random.Random(SEED))
    url = image_host.publish("/film.mp4", "video/mp4", filmed(clip.frames))
    said = client.ask([{"type": "video", "video": url, "nframes": 4, **FITTING}, text(questions.WATCH["en"][0])]).text
    assert said == describe_motion(clip.kind, clip.colour, clip.direction, "en")


def test_frames_are_seen_in_their_order(client: Client) -> None:
    clip = moving(random.Random(SEED + 1))
    said = client.ask([listed(clip.frames[::-1], **FITTING), text(questions.WATCH["en"][0])]).text
    assert said == describe_motion(clip.kind, clip.colour, OPPOSITE[clip.direction], "en")


def test_a_span_of_a_film_is_seen_alone(client: Client) -> None:
    """Two clips of two seconds each, one after the other: each is seen when it is asked for."""
    rng = random.Random(SEED + 2)
    first, second = moving(rng), moving(rng)
    url = data_url(filmed([*first.frames, *second.frames]), "video/mp4")
    for clip, span in ((first, {"video_end": 1.9}), (second, {"video_start": 2.0})):
        part = {"type": "video_url", "video_url": {"url": url}, "nframes": 4, **span, **FITTING}
        said = client.ask([part, text(questions.WATCH["en"][0])]).text
        assert said == describe_motion(clip.kind, clip.colour, clip.direction, "en")


def test_a_clip_costs_the_tokens_of_its_pairs_of_frames(client: Client) -> None:
    counts = []
    for frames, side in itertools.product((2, 4, 8), (84, 168)):
        clip = moving(random.Random(SEED), frames)
        sized = listed(clip.frames, resized_height=side, resized_width=side)
        tokens = client.ask([sized, text("Hello")], max_tokens=1).prompt_tokens
        counts.append(tokens - frames // 2 * (side // 28) ** 2)
    assert len(set(counts)) == 1


def page(number: str) -> Image.Image:
    """A page with a number on it, of the size that the model knows best."""
    return text_sample(random.Random(number), "digits", "en", number).images[0]


def pdf(pages: Sequence[Image.Image]) -> str:
    buffer = io.BytesIO()
    pages[0].save(buffer, "PDF", save_all=True, append_images=pages[1:], resolution=72)
    return data_url(buffer.getvalue(), "application/pdf")


def test_pages_of_a_pdf_are_read(client: Client) -> None:
    numbers = ["4821", "907", "5530"]
    url = pdf([page(number) for number in numbers])
    for index, number in enumerate(numbers, 1):
        part = {"type": "file", "file": {"file_data": url, "filename": "n.pdf"}, "pages": str(index), "dpi": 72}
        assert number in client.ask([part, text(questions.READ["en"][0])]).text


def test_the_reply_tells_what_became_of_everything(client: Client) -> None:
    clip = moving(random.Random(SEED))
    parts = [
        image(clip.frames[0]),
        listed(clip.frames, **FITTING),
        {"type": "file", "file": {"file_data": pdf([page("1"), page("2")])}, "pages": "2", "dpi": 72},
        text("Hello"),
    ]
    body = client.body(parts, max_tokens=1, return_media_info=True)
    answer = client.post(body).json()
    picture, film, sheet = answer["media_info"]
    square = {"width": SIDE, "height": SIDE}
    assert picture == {
        "param": "messages[0].content[0].image_url.url",
        "type": "image",
        "original_size": square,
        "resized_size": square,
        "tokens": 36,
    }
    assert (film["type"], film["frames"], film["tokens"]) == ("video", 4, 72)
    assert (sheet["type"], sheet["page"]) == ("page", 2)
    told = sum(one["tokens"] for one in answer["media_info"])
    bare = client.ask([text("Hello")], max_tokens=1).prompt_tokens
    assert answer["usage"]["prompt_tokens"] == bare + told + 2 * 3  # a start and an end around each

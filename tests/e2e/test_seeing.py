"""The model sees what is there: pictures drawn a moment ago, asked about in both languages."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from PIL import Image

from server.demo import questions
from server.demo.drawing import draw_shapes, draw_things
from server.demo.phrases import COLOURS, LANGUAGES, Language, Thing, describe
from server.demo.pictures import make_sample
from tests.e2e.asking import Client, data_url, encoded, image, text
from tests.e2e.conftest import ImageHost
from tests.e2e.marking import Question, ask_all, ask_together, require
from tests.serving import Server

pytestmark = pytest.mark.e2e

SEED = 20_261
ENOUGH = 0.9
"""Share of whole answers that must be right, letter by letter. The model card promises more; a machine that rounds in
another way may lose one or two of twenty."""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_names_shapes_colours_and_places(client: Client, language: Language, stream: bool) -> None:
    seed = f"{SEED}/{language}/{stream}"
    rng = random.Random(seed)
    samples = [make_sample(rng, "shapes", language) for _ in range(20)]
    require(ENOUGH, ask_all(client, samples, stream=stream), len(samples), seed)


@pytest.mark.parametrize("colour", COLOURS)
def test_tells_every_colour_from_the_others(client: Client, colour: str) -> None:
    """A swapped channel turns red into blue and orange into another blue."""
    things = [Thing("square", colour, "in the middle", 84, 84, 46, COLOURS[colour].tints[0])]
    picture = draw_things((168, 168), (250, 250, 250), things)
    assert f" {colour} square" in client.ask([image(picture), text("Describe this image.")]).text


def test_wide_and_tall_pictures_keep_their_proportions(client: Client) -> None:
    """A square that is squeezed to a third is no square any more."""
    rng = random.Random(f"{SEED}/sides")
    asked = []
    for number in range(16):
        picture, things = draw_shapes(rng, (420, 140) if number % 2 else (140, 420))
        asked.append(Question([image(picture), text("Describe this image.")], describe(things, "en")))
    require(0.8, ask_together(client, asked), 16, f"{SEED}/sides")


@pytest.mark.parametrize("language", LANGUAGES)
def test_reads_numbers(client: Client, language: Language) -> None:
    seed = f"{SEED}/digits/{language}"
    rng = random.Random(seed)
    samples = [make_sample(rng, "digits", language) for _ in range(20)]
    require(ENOUGH, ask_all(client, samples), len(samples), seed)


@pytest.mark.parametrize("language", LANGUAGES)
def test_talks_without_a_picture(client: Client, language: Language) -> None:
    for wordings, answer in questions.TALK[language]:
        assert client.ask(wordings[0]).text == answer


# ---- Files and where they come from -----------------------------------------------------------------


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Two shapes that no turn, mirror or swap of channels leaves as they are."""
    things = [
        Thing("circle", "red", "at the top left", 50, 40, 26, (220, 40, 40)),
        Thing("star", "blue", "at the bottom right", 160, 115, 30, (50, 80, 220)),
    ]
    return draw_things((224, 168), (250, 250, 250), things)


RIGHT = "a red circle at the top left and a blue star at the bottom right."
RIGHT_AR = "دائرة حمراء في أعلى اليسار ونجمة زرقاء في أسفل اليمين."

FILES: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "png": ("image/png", lambda picture: encoded(picture, "PNG")),
    "png with a palette": ("image/png", lambda picture: encoded(picture.quantize(16), "PNG")),
    "jpeg": ("image/jpeg", lambda picture: encoded(picture, "JPEG", quality=92)),
    "progressive jpeg": ("image/jpeg", lambda picture: encoded(picture, "JPEG", quality=92, progressive=True)),
    "cmyk jpeg": ("image/jpeg", lambda picture: encoded(picture.convert("CMYK"), "JPEG", quality=95)),
    "webp": ("image/webp", lambda picture: encoded(picture, "WEBP", quality=92)),
    "lossless webp": ("image/webp", lambda picture: encoded(picture, "WEBP", lossless=True)),
    "gif": ("image/gif", lambda picture: encoded(picture, "GIF")),
    "wrong media type": ("image/png", lambda picture: encoded(picture, "JPEG", quality=92)),
    "no subtype": ("image", lambda picture: encoded(picture, "PNG")),
}


@pytest.mark.parametrize("kind", FILES)
def test_reads_every_kind_of_file(client: Client, picture: Image.Image, kind: str) -> None:
    media_type, encode = FILES[kind]
    part = {"type": "image_url", "image_url": {"url": data_url(encode(picture), media_type), "detail": "high"}}
    assert client.ask([part, text("Describe this image.")]).text == RIGHT


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera that notes this EXIF orientation has stored an upright scene."""


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photograph_is_seen_upright(client: Client, picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(picture.transpose(TURNS[orientation]), "JPEG", quality=92, exif=exif)
    part = {"type": "image_url", "image_url": {"url": data_url(file, "image/jpeg")}}
    assert client.ask([part, text("Describe this image.")]).text == RIGHT


def test_transparency_is_seen_on_white(client: Client, picture: Image.Image) -> None:
    """The hidden colour of see-through pixels, here black, must not show."""
    layered = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    shapes = picture.convert("L").point(lambda level: 255 if level < 240 else 0)
    layered.paste(picture, mask=shapes)
    on_white = Image.new("RGB", picture.size, "white")
    on_white.paste(picture, mask=shapes)
    question = text("Describe this image.")
    assert client.ask([image(layered), question]).text == client.ask([image(on_white), question]).text == RIGHT


@pytest.mark.parametrize(("question", "right"), [("Describe this image.", RIGHT), ("صف هذه الصورة.", RIGHT_AR)])
def test_the_message_of_the_model_card_is_taken_as_it_is(
    client: Client, picture: Image.Image, question: str, right: str
) -> None:
    content = [
        {"type": "image", "image": data_url(encoded(picture, "PNG"), "image")},
        {"type": "text", "text": question},
    ]
    assert content[0]["image"].startswith("data:image;base64,")
    assert client.ask(messages=[{"role": "user", "content": content}]).text == right


def test_a_picture_is_fetched_from_its_address(client: Client, image_host: ImageHost, picture: Image.Image) -> None:
    url = image_host.publish("/shapes.png", "image/png", encoded(picture, "PNG"))
    question = text("Describe this image.")
    assert client.ask([{"type": "image_url", "image_url": {"url": url}}, question]).text == RIGHT
    assert client.ask([{"type": "image", "image": url}, question]).text == RIGHT


def test_an_address_that_nobody_allowed_is_refused(client: Client, server: Server) -> None:
    url = f"{server.address}/health"
    reply = client.post(client.body([{"type": "image_url", "image_url": {"url": url}}]))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content[0].image_url.url"

"""Every kind of picture file comes out upright and RGB, or is refused by name."""

import io
import itertools
import math
import random
import struct
import time
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageDraw

import server.media.decoding.decode
from server.demo.drawing import draw_shapes, draw_text
from server.demo.fonts import pick_font
from server.errors import InvalidImage
from server.media.decoding.decode import MAX_SCANS, OVERSAMPLING, Pixels, open_picture
from server.media.decoding.orientation import read_orientation
from server.media.limits import DecodeLimits

LIMITS = DecodeLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def decode(data: bytes, limits: DecodeLimits = LIMITS) -> Pixels:
    picture = open_picture(data, limits)
    pixels = picture.pixels()
    assert pixels.shape == (picture.height, picture.width, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels


def by_pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def refusal(data: bytes, limits: DecodeLimits = LIMITS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        open_picture(data, limits, param="here").pixels()
    assert caught.value.param == "here"
    return caught.value


def noise(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    bands = len(mode)
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    tail = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + tail


# ---- What everybody sends -----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_back_every_pixel(kind: str, options: dict[str, Any]) -> None:
    image = noise()
    assert np.array_equal(decode(save(image, kind, **options)), np.asarray(image))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    pixels = decode(save(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_a_phone_photograph_of_several_pictures_is_its_first() -> None:
    data = save(Image.new("RGB", (16, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 8), BLUE)])
    assert np.abs(decode(data).astype(int) - RED).max() <= 3


# ---- JPEG by two ways -------------------------------------------------------------------------------

SIZES = ((1, 1), (1, 7), (2, 3), (8, 8), (9, 17), (16, 15), (17, 33), (31, 64), (3, 255))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_pillows_own(size: tuple[int, int], progressive: bool) -> None:
    image = noise(*size)
    restarts: tuple[dict[str, int], ...] = ({}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1})
    for quality, subsampling, restart in itertools.product((30, 75, 98), ("4:4:4", "4:2:2", "4:2:0"), restarts):
        data = save(image, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive, **restart)
        assert np.array_equal(decode(data), by_pillow(data)), (quality, subsampling, restart)
    for same in (save(image, "JPEG", keep_rgb=True, progressive=progressive), save(image.convert("L"), "JPEG")):
        assert np.array_equal(decode(same), by_pillow(same))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_every_subsampling_of_turbojpeg_is_pillows_own(size: tuple[int, int], subsampling: str) -> None:
    data = simplejpeg.encode_jpeg(np.asarray(noise(*size)), 80, "RGB", subsampling)
    assert np.array_equal(decode(data), by_pillow(data))


@pytest.mark.parametrize("factors", [(0x12, 0x11, 0x11), (0x41, 0x11, 0x11), (0x14, 0x12, 0x11), (0x11, 0x22, 0x11)])
def test_odd_subsamplings_are_pillows_own_or_left_to_it(factors: tuple[int, int, int]) -> None:
    data = bytearray(save(noise(), "JPEG", subsampling=0))
    frame = data.index(b"\xff\xc0")
    data[frame + 11 : frame + 19 : 3] = bytes(factors)
    assert np.array_equal(decode(bytes(data)), by_pillow(bytes(data)))


def test_plain_jpegs_go_through_simplejpeg_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def decode_jpeg(data: bytes, *arguments: Any, **named: Any) -> Any:
        tried.append(data)
        return simplejpeg.decode_jpeg(data, *arguments, **named)

    monkeypatch.setattr(server.media.decoding.decode, "simplejpeg", SimpleNamespace(decode_jpeg=decode_jpeg))
    plain = [save(noise(), "JPEG"), save(noise(), "JPEG", progressive=True), save(noise(mode="L"), "JPEG")]
    for data in (*plain, save(noise(mode="CMYK"), "JPEG"), save(noise()), save(noise(), "WEBP"), save(noise(), "GIF")):
        decode(data)
    assert tried == plain


def test_what_simplejpeg_complains_of_is_left_to_pillow() -> None:
    data = save(noise(), "JPEG")
    rubbish = data[:-2] + b"\xff\xe0\x00\x02" + b"rubbish" + data[-2:]
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(rubbish)
    assert np.array_equal(decode(rubbish), by_pillow(data))


# ---- Scaled decoding --------------------------------------------------------------------------------


def natural(width: int, height: int) -> Image.Image:
    """Like a photograph: most of it is in the low frequencies (1/f), with edges in colour."""
    chance = np.random.default_rng(3)
    vertical, horizontal = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    frequency = np.hypot(vertical, horizontal)
    frequency[0, 0] = 1
    shared, bands = chance.standard_normal((height, width)), []
    for _ in range(3):
        own = np.fft.fft2(shared + 0.25 * chance.standard_normal((height, width)))
        band = np.real(np.fft.ifft2(own / frequency))
        bands.append((band - band.min()) / np.ptp(band) * 255)
    image = Image.fromarray(np.stack(bands, -1).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x, y, radius, *colour in chance.integers(0, (width, height, height // 6, 256, 256, 256), (40, 6)).tolist():
        draw.regular_polygon((x, y, radius + 5), 5, rotation=x, fill=tuple(colour))
    return image


def page(width: int, height: int, text: str) -> Image.Image:
    """A page of small print."""
    image = Image.new("RGB", (width, height), (252, 252, 250))
    draw, font = ImageDraw.Draw(image), pick_font(random.Random(5), text, 20)
    for line in range(60, height - 60, 32):
        draw.text((60, line), text * 2, font=font, fill=(20, 20, 20))
    return image


def line(width: int, height: int, text: str) -> Image.Image:
    return draw_text(random.Random(7), text, 72).resize((width, height))


ARABIC, ENGLISH = (
    "هذا نص عربي لاختبار دقة القراءة بعد التصغير ٠١٢٣٤ ",
    "The quick brown fox jumps over the lazy dog 012345. ",
)
PICTURES: dict[str, Callable[[], Image.Image]] = {
    "page in Arabic": lambda: page(1240, 1752, ARABIC),
    "page in English": lambda: page(1240, 1752, ENGLISH),
    "photograph": lambda: natural(1600, 1200),
    "demo: shapes": lambda: draw_shapes(random.Random(1), (1600, 1200))[0],
    "demo: text": lambda: line(1600, 400, ARABIC[:20]),
}
LEAST_DECIBELS = 39
"""Between resizing a JPEG decoded at a reduced scale and all of it; between bicubic and Lanczos small print has 37."""


@pytest.mark.parametrize("name", PICTURES)
def test_decoding_at_a_reduced_scale_is_seen_by_nobody(name: str) -> None:
    image = PICTURES[name]()
    for (quality, subsampling), scale in itertools.product(((90, 2), (75, 2), (95, 0)), (2, 4, 8)):
        # As close to the limit as whole blocks of 28 pixels come.
        width, height = (max(28, side // scale // OVERSAMPLING // 28 * 28) for side in image.size)
        picture = open_picture(save(image, "JPEG", quality=quality, subsampling=subsampling), LIMITS)
        reduced = picture.pixels(height, width)
        if reduced.shape[0] == image.height:
            continue
        whole, small = (
            np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
            for pixels in (picture.pixels(), reduced)
        )
        difference = np.abs(whole - small)
        decibels = 20 * math.log10(255 / math.sqrt(max((difference**2).mean(), 1e-9)))
        print(
            f"{name}, quality {quality}, {'4:2:0' if subsampling else '4:4:4'}, 1/{image.height // reduced.shape[0]} "
            f"to {width}x{height}: {decibels:.1f} dB, at most {difference.max()}, on average {difference.mean():.2f}"
        )
        assert decibels >= LEAST_DECIBELS


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((None, None), (480, 640)),
        ((480, 640), (480, 640)),
        ((121, 160), (480, 640)),
        ((120, 161), (480, 640)),
        ((120, 160), (240, 320)),
        ((61, 80), (240, 320)),
        ((60, 80), (120, 160)),
        ((31, 1), (120, 160)),
        ((30, 40), (60, 80)),
        ((1, 1), (60, 80)),
    ],
)
def test_the_scale_keeps_twice_what_is_wanted(wanted: tuple[int | None, int | None], expected: tuple[int, int]) -> None:
    data = save(noise(640, 480), "JPEG")
    assert open_picture(data, LIMITS).pixels(*wanted).shape == (*expected, 3)
    assert open_picture(data, DecodeLimits(scaled_decoding=False)).pixels(*wanted).shape == (480, 640, 3)


@pytest.mark.parametrize(
    ("size", "expected"), [((641, 480), (480, 641)), ((642, 482), (241, 321)), ((644, 480), (120, 161))]
)
def test_a_scale_divides_both_sides(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert open_picture(save(noise(*size), "JPEG"), LIMITS).pixels(28, 28).shape == (*expected, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_other_formats_are_decoded_in_full(kind: str) -> None:
    assert open_picture(save(noise(640, 480), kind), LIMITS).pixels(28, 28).shape == (480, 640, 3)


def test_what_is_wanted_is_wanted_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(noise(640, 320), "JPEG", exif=exif)
    picture = open_picture(data, LIMITS)
    assert (picture.width, picture.height) == (320, 640)
    assert picture.pixels(160, 80).shape == (320, 160, 3)
    assert picture.pixels(80, 160).shape == (640, 320, 3)


def test_a_picture_may_be_decoded_more_than_once() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "GIF"):
        picture = open_picture(save(noise(), kind), LIMITS)
        assert np.array_equal(picture.pixels(), picture.pixels())


# ---- Modes ------------------------------------------------------------------------------------------


def test_rgba_goes_onto_white_exactly_as_in_qwen_vl_utils() -> None:
    vision_process = pytest.importorskip("qwen_vl_utils.vision_process")
    image = noise(mode="RGBA")
    assert np.array_equal(decode(save(image)), np.asarray(vision_process.to_rgb(image)))


def test_grey_with_alpha_goes_onto_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (80, 255))
    assert decode(save(image)).tolist() == [[list(WHITE), [80, 80, 80]]]


def palette_picture() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    return image


def test_palettes_become_their_colours() -> None:
    assert decode(save(palette_picture())).tolist() == [[list(RED), list(GREEN), list(BLUE)]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    assert decode(save(palette_picture(), kind, transparency=1)).tolist() == [[list(RED), list(WHITE), list(BLUE)]]


def test_a_palette_may_be_partly_transparent() -> None:
    pixels = decode(save(palette_picture(), transparency=b"\x00\x80\xff"))
    assert pixels[0, 0].tolist() == list(WHITE)
    assert pixels[0, 1].tolist() == [127, 255, 127]
    assert pixels[0, 2].tolist() == list(BLUE)


def test_one_colour_may_stand_for_transparent() -> None:
    rgb = Image.new("RGB", (2, 1), RED)
    rgb.putpixel((1, 0), BLUE)
    assert decode(save(rgb, transparency=RED)).tolist() == [[list(WHITE), list(BLUE)]]
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 9)
    assert decode(save(grey, transparency=7)).tolist() == [[list(WHITE), [9, 9, 9]]]


def test_black_and_white_and_grey() -> None:
    assert decode(save(Image.new("1", (1, 1), 1))).tolist() == [[list(WHITE)]]
    assert decode(save(Image.new("L", (1, 1), 99))).tolist() == [[[99, 99, 99]]]
    assert np.abs(decode(save(Image.new("L", (8, 8), 99), "JPEG")).astype(int) - 99).max() <= 1


def test_cmyk_jpeg_is_converted() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode(save(image, "JPEG", quality=95)).astype(int) - RED).max() <= 6


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    assert decode(save(Image.fromarray(deep)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bit_grey_may_have_a_transparent_shade() -> None:
    rows = b"\0" + struct.pack(">2H", 0x1234, 0x5678)
    data = raw_png(2, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 0x1234)))
    assert decode(data)[0, :, 0].tolist() == [255, 0x56]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_other_sixteen_bit_pictures_keep_the_high_byte(colour: int, channels: int) -> None:
    values = [0x4000] * channels
    if colour in (4, 6):
        values[-1] = 0xFFFF
    data = raw_png(1, 1, 16, colour, b"\0" + struct.pack(f">{channels}H", *values))
    assert decode(data).tolist() == [[[0x40] * 3]]


def test_sixteen_bit_colour_with_a_transparent_colour_is_still_a_picture() -> None:
    data = raw_png(1, 1, 16, 2, b"\0" + b"\x40\x00" * 3, png_chunk(b"tRNS", b"\x12\x34" * 3))
    assert decode(data).shape == (1, 1, 3)


# ---- Orientation ------------------------------------------------------------------------------------


def photograph() -> Image.Image:
    """Upright: red above left, green above right, blue below left, white below right; 32 x 16."""
    pixels = np.empty((16, 32, 3), np.uint8)
    pixels[:8, :16], pixels[:8, 16:], pixels[8:, :16], pixels[8:, 16:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


STORED = {  # how a camera stores the upright picture for each orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0}), ("WEBP", {"lossless": True})],
)
def test_every_orientation_comes_out_upright(orientation: int, kind: str, options: dict[str, Any]) -> None:
    turn = STORED[orientation]
    stored = photograph() if turn is None else photograph().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(save(stored, kind, exif=exif, **options))
    assert pixels.shape == (16, 32, 3)
    assert np.abs(pixels.astype(int) - np.asarray(photograph())).max() <= 6


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_metadata_does_not_spoil_the_picture(exif: bytes) -> None:
    assert decode(save(noise(), "JPEG", exif=exif)).shape == (48, 64, 3)


def test_a_png_may_tell_its_orientation_at_its_end() -> None:
    stored = photograph().transpose(Image.Transpose.ROTATE_90)
    exif = png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
    data = save(stored)
    assert np.array_equal(decode(data[:-12] + exif + data[-12:]), np.asarray(photograph()))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_orientation_is_pillows(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x9286] = "maker", orientation, "comment"
    data = save(noise(), kind, exif=exif)
    picture = open_picture(data, LIMITS)
    assert (picture.width, picture.height) == ((64, 48) if orientation < 5 else (48, 64))
    assert Image.open(io.BytesIO(data)).getexif()[0x0112] == orientation


@pytest.mark.parametrize(
    ("tiff", "expected"),
    [
        (b"II*\0\x08\0\0\0\1\0\x12\x01\3\0\1\0\0\0\x08\0\0\0", 8),
        (b"MM\0*\0\0\0\x08\0\1\x01\x12\0\4\0\0\0\1\0\0\0\5", 5),
        (b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\4\0\0\0\1\0\0\0\5", 5),
        (b"MM\0*\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\1\0\0\0\5", None),
        (b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x09\0\0", 1),
        (b"II*\0\xff\xff\xff\xff", None),
        (b"XX*\0\x08\0\0\0\1\0", None),
        (b"II", None),
        (b"", None),
    ],
)
def test_the_orientation_is_read_from_the_first_directory(tiff: bytes, expected: int | None) -> None:
    assert read_orientation(tiff) == expected


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode(save(noise(), exif=exif)), np.asarray(noise()))


# ---- Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty_image_file", "empty"),
        (b"hello", "invalid_image_format", "supported are JPEG, PNG, WebP, GIF,"),
        (b"\0" * 1000, "invalid_image_format", "no known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_media_type", "an SVG"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "unsupported_image_media_type", "an SVG"),
        (b"<!DOCTYPE html><html></html>", "unsupported_image_media_type", "an HTML page"),
        (b"%PDF-1.7\n", "unsupported_image_media_type", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_image_media_type", "a PostScript"),
        (b"8BPS\0\x01" + b"\0" * 40, "unsupported_image_media_type", "a Photoshop"),
        (b"\0\0\0\x18ftypcrx isom", "unsupported_image_media_type", "a camera's raw"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "unsupported_image_media_type", "an MP4"),
    ],
)
def test_other_files_are_named(data: bytes, code: str, words: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PPM", "PCX", "EPS", "SGI", "JPEG2000"])
def test_pillows_other_formats_are_never_opened(kind: str) -> None:
    data = save(noise(), kind)
    assert refusal(data).code in ("unsupported_image_media_type", "invalid_image_format")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off_is_damaged(kind: str, kept: float) -> None:
    data = save(noise(200, 200), kind)
    error = refusal(data[: max(13, int(len(data) * kept))])
    assert error.code == "image_parse_error"
    assert len(error.message) < 100


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xd9",
        b"GIF89a",
        b"RIFF\0\0\0\0WEBP",
        raw_png(0, 5, 8, 2, b""),
        raw_png(5, 5, 3, 2, b""),
        raw_png(5, 5, 8, 2, b"\0" * 3),
        b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b"\x3b",
        b"GIF89a" + struct.pack("<HHBBB", 5, 5, 0, 0, 0) + b"\x3b",
    ],
)
def test_headers_without_a_picture_are_damaged(data: bytes) -> None:
    assert refusal(data).code == "image_parse_error"


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_escapes_as_another_error(seed: int) -> None:
    chance = np.random.default_rng(seed)
    data = bytearray(save(noise(), ["JPEG", "PNG", "WEBP", "GIF"][seed % 4]))
    for place in chance.integers(8, len(data), 12):
        data[place] = chance.integers(256)
    try:
        open_picture(bytes(data), DecodeLimits(1_000_000)).pixels()
    except InvalidImage as error:
        assert error.code in ("image_parse_error", "image_too_large")  # noqa: PT017 - many come out whole


# ---- Bombs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(13_000, 13_000), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    error = refusal(raw_png(width, height, 8, 2, b""))
    assert error.code in ("image_too_large", "image_parse_error")
    assert (error.code, width) != ("image_parse_error", 13_000)


def test_a_gif_frame_larger_than_its_screen_is_measured_too() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x44\x01\x00\x3b"
    assert refusal(screen + frame).code == "image_too_large"


def test_the_limit_is_exact() -> None:
    data = save(noise(10, 10))
    assert decode(data, DecodeLimits(100)).shape == (10, 10, 3)
    error = refusal(data, DecodeLimits(99))
    assert error.code == "image_too_large"
    assert "10x10" in error.message


def test_a_jpeg_of_endless_scans_is_refused_before_decoding() -> None:
    data = save(noise(), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    comment_with_an_end = segment(0xFE, b"\xff\xd9")
    for between in (b"", comment_with_an_end):
        with pytest.raises(InvalidImage, match=f"more than {MAX_SCANS} scans"):
            open_picture(data[:-2] + between + last_scan * 5000 + b"\xff\xd9", LIMITS)


def test_what_looks_like_a_scan_and_is_none_does_not_count() -> None:
    data = save(noise(), "JPEG")
    comment = segment(0xFE, b"\xff\xda" * 1000)
    assert decode(data[:2] + comment + data[2:]).shape == (48, 64, 3)
    assert decode(data + b"\xff\xda" * 1000).shape == (48, 64, 3)
    assert decode(data[:-2] + comment + data[-2:]).shape == (48, 64, 3)


# ---- Files made to be slow --------------------------------------------------------------------------

LARGE = 20 * 2**20
"""Bytes of the largest file that a server takes by default."""
TIME_LIMIT_S = 1.0
"""Of CPU time; the worst of these takes 0.4 s."""


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def filled(unit: bytes) -> bytes:
    return unit * (LARGE // len(unit))


def jpeg_with(header: bytes = b"", tail: bytes = b"") -> bytes:
    data = save(noise(), "JPEG")
    return data[:2] + header + data[2:-2] + tail + data[-2:]


def png_with(*chunks: bytes, idat: bytes = b"", tail: bytes = b"") -> bytes:
    whole = raw_png(8, 8, 8, 2, bytes(8 * 25), *chunks)
    at = whole.index(b"IDAT") - 4
    return whole[:at] + idat + whole[at:-12] + tail + whole[-12:]


def gif_with(blocks: bytes) -> bytes:
    data = save(noise(mode="L"), "GIF")
    at = data.index(b",", 13 + 3 * 256)
    return data[:at] + blocks + data[at:]


def webp_with(chunks: bytes) -> bytes:
    data = save(noise(), "WEBP", exif=b"II*\0\x08\0\0\0\0\0") + chunks
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


TABLE, FRAME = bytes([0]) + bytes([1]) * 64, b"\x08\0\x10\0\x10\3" + b"\1\x11\0" * 20_000
MEGABYTE = zlib.compress(bytes(2**20), 9)
MANY_ENTRIES = struct.pack("<H", 65_535) + b"".join(
    struct.pack("<HHII", tag, 7, 2**23, 8) for tag in range(0x200, 0x200 + 65_000)
)
SLOW: dict[str, Callable[[], bytes]] = {
    "JPEG: comments": lambda: jpeg_with(filled(segment(0xFE, b""))),
    "JPEG: application data": lambda: jpeg_with(filled(segment(0xE1, b""))),
    "JPEG: restart intervals": lambda: jpeg_with(filled(segment(0xDD, b"\0\0"))),
    "JPEG: zeros in the header": lambda: jpeg_with(segment(0xE0, b"") + bytes(LARGE)),
    "JPEG: fill bytes in the header": lambda: jpeg_with(b"\xff" * LARGE),
    "JPEG: lone markers": lambda: jpeg_with(filled(b"\xff\xd0")),
    "JPEG: Photoshop resources": lambda: jpeg_with(
        filled(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400))
    ),
    "JPEG: EXIF in parts": lambda: jpeg_with(filled(segment(0xE1, b"Exif\0\0" + bytes(65_000)))),
    "JPEG: EXIF of many entries": lambda: jpeg_with(segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + MANY_ENTRIES[:65_000])),
    "JPEG: colour profile": lambda: jpeg_with(filled(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)))),
    "JPEG: tables": lambda: jpeg_with(filled(segment(0xDB, TABLE))),
    "JPEG: tables in one segment": lambda: jpeg_with(filled(segment(0xDB, TABLE * 1000))),
    "JPEG: frames": lambda: jpeg_with(filled(segment(0xC0, FRAME))),
    "JPEG: comments between scans": lambda: jpeg_with(tail=filled(segment(0xFE, b""))),
    "JPEG: fill bytes, then scans": lambda: jpeg_with(tail=b"\xff" * LARGE + b"\xff\xda" * 60),
    "JPEG: comments, then scans": lambda: jpeg_with(tail=filled(segment(0xFE, b"")) + b"\xff\xda" * 60),
    "PNG: texts": lambda: png_with(filled(png_chunk(b"tEXt", b"k\0"))),
    "PNG: unknown chunks": lambda: png_with(filled(png_chunk(b"abCd", b""))),
    "PNG: inflating texts": lambda: png_with(filled(png_chunk(b"zTXt", b"\0\0" + MEGABYTE))),
    "PNG: inflating international texts": lambda: png_with(filled(png_chunk(b"iTXt", b"k\0\1\0\0\0" + MEGABYTE))),
    "PNG: inflating profiles": lambda: png_with(filled(png_chunk(b"iCCP", b"k\0\0" + MEGABYTE))),
    "PNG: EXIF of many entries": lambda: png_with(
        png_chunk(b"eXIf", b"II*\0\x08\0\0\0" + MANY_ENTRIES + bytes(LARGE // 2))
    ),
    "PNG: palettes": lambda: png_with(filled(png_chunk(b"PLTE", bytes(768)))),
    "PNG: a large palette": lambda: png_with(png_chunk(b"PLTE", bytes(LARGE))),
    "PNG: empty data": lambda: png_with(idat=filled(png_chunk(b"IDAT", b""))),
    "PNG: data in small pieces": lambda: png_with(tail=filled(png_chunk(b"IDAT", bytes(1200)))),
    "PNG: texts at the end": lambda: png_with(tail=filled(png_chunk(b"tEXt", b"k\0"))),
    "PNG: animation control": lambda: png_with(filled(png_chunk(b"acTL", bytes(8)))),
    "GIF: empty extensions": lambda: gif_with(filled(b"!\xfe\0")),
    "GIF: graphic controls": lambda: gif_with(filled(b"!\xf9\4\0\0\0\0\0")),
    "GIF: a comment in small pieces": lambda: gif_with(b"!\xfe" + filled(b"\1x") + b"\0"),
    "GIF: rubbish": lambda: gif_with(bytes(LARGE)),
    "GIF: pixels in small pieces": lambda: gif_with(b",\0\0\0\0\4\0\4\0\0\2" + filled(b"\1\0") + b"\0"),
    "WEBP: chunks": lambda: webp_with(filled(b"abcd\0\0\0\0")),
    "WEBP: frames": lambda: webp_with(filled(b"ANMF\x10\0\0\0" + bytes(16))),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_file_made_to_be_slow_is_soon_done_with(name: str) -> None:
    data = SLOW[name]()
    started = time.process_time()
    try:
        pixels = open_picture(data, LIMITS).pixels()
        outcome = f"{pixels.shape[1]}x{pixels.shape[0]}"
    except InvalidImage as error:
        outcome = str(error)
    seconds = time.process_time() - started
    print(f"{name}, {len(data) / 2**20:.1f} MiB: {seconds:.3f} s, {outcome}")
    assert seconds < TIME_LIMIT_S


def test_a_webp_canvas_is_measured_before_it_is_laid_out() -> None:
    chunk = b"VP8X\x0a\0\0\0\x02\0\0\0" + b"\xff\xff\xff" * 2
    assert refusal(b"RIFF\x60\0\0\0WEBP" + chunk + bytes(60)).code == "image_too_large"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA"])
def test_metadata_around_and_between_changes_no_pixel(mode: str) -> None:
    image = noise().convert(mode)
    texts = png_chunk(b"tEXt", b"k\0v") + png_chunk(b"iCCP", b"k\0\0" + MEGABYTE) + png_chunk(b"tIME", bytes(7))
    data = save(image)
    at = data.index(b"IDAT") - 4
    changed = data[:33] + texts + data[33:at] + texts + data[at:-12] + texts + data[-12:] + b"rubbish"
    assert np.array_equal(decode(changed), decode(data))


def test_a_jpegs_comments_previews_and_profiles_change_no_pixel() -> None:
    for mode in ("RGB", "L", "CMYK"):
        data = save(noise(mode=mode), "JPEG")
        preview = segment(0xE1, b"Exif\0\0" + save(noise(16, 16), "JPEG")[:800])
        changed = data[:2] + preview + segment(0xE2, b"ICC_PROFILE\0\1\1") + segment(0xFE, b"\xff\xc0") + data[2:]
        assert np.array_equal(decode(changed), decode(data))


# ---- Limits -----------------------------------------------------------------------------------------


def test_a_limit_of_nothing_is_the_operators_mistake() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        DecodeLimits(0)

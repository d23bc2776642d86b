"""Every kind of picture file comes out upright and RGB, or is refused by name."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.errors import InvalidImage
from server.media.decode import MAX_SCANS, DecodeLimits, count_scans, decode_picture

LIMITS = DecodeLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def decode(data: bytes) -> np.ndarray:
    image = decode_picture(data, LIMITS)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(data: bytes, limits: DecodeLimits = LIMITS) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode_picture(data, limits, param="here")
    assert caught.value.param == "here"
    return caught.value


def noise(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    bands = len(mode)
    pixels = np.random.default_rng(7).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    tail = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + tail


# ---- The four formats -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_back_every_pixel(kind: str, options: dict[str, Any]) -> None:
    image = noise()
    assert np.array_equal(decode(save(image, kind, **options)), np.asarray(image))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_pixels_are_pillows_own(options: dict[str, Any]) -> None:
    data = save(noise(), "JPEG", **options)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    pixels = decode(save(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_a_phone_photograph_of_several_pictures_is_its_first() -> None:
    data = save(Image.new("RGB", (16, 8), RED), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 8), BLUE)])
    assert np.abs(decode(data).astype(int) - RED).max() <= 3


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(save(noise(), "JPEG", exif=exif)).shape == (48, 64, 3)


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
        (b"hello", "invalid_image_format", "not a JPEG, PNG, WEBP or GIF"),
        (b"\0" * 1000, "invalid_image_format", "not a JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image_media_type", "an SVG"),
        (b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "unsupported_image_media_type", "an SVG"),
        (b"<!DOCTYPE html><html></html>", "unsupported_image_media_type", "an HTML page"),
        (b"%PDF-1.7\n", "unsupported_image_media_type", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unsupported_image_media_type", "a PostScript"),
        (b"8BPS\0\x01" + b"\0" * 40, "unsupported_image_media_type", "a Photoshop"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported_image_media_type", "a HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "unsupported_image_media_type", "an AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "unsupported_image_media_type", "an MP4"),
    ],
)
def test_other_files_are_named(data: bytes, code: str, words: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert words in error.message


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "ICO", "TGA", "PPM", "PCX", "EPS", "SGI", "JPEG2000"])
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decode_picture(bytes(data), DecodeLimits(1_000_000))
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
    assert decode_picture(data, DecodeLimits(100)).size == (10, 10)
    error = refusal(data, DecodeLimits(99))
    assert error.code == "image_too_large"
    assert "10x10" in error.message


def test_a_jpeg_of_endless_scans_is_refused_before_decoding() -> None:
    data = save(noise(), "JPEG", progressive=True)
    assert 2 <= count_scans(data) <= 12
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + last_scan * 5000 + b"\xff\xd9"
    error = refusal(bomb)
    assert error.code == "image_parse_error"
    assert str(MAX_SCANS) in error.message


def test_a_plain_jpeg_has_one_scan_whatever_follows_it() -> None:
    data = save(noise(), "JPEG")
    assert count_scans(data) == 1
    assert count_scans(data + b"\xff\xda" * 1000) == 1
    assert count_scans(save(noise())) == 0


def test_a_limit_of_nothing_is_the_operators_mistake() -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        DecodeLimits(0)

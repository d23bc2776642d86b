"""Valid files of every kind that the server decodes: what the damage is done to."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from server.media.formats import FORMATS
from tests import media_files
from tests.fuzz.pdf_files import assemble, document, encrypted, form, stream
from tests.media_files import Make

Kind = Literal["picture", "document", "clip"]


@dataclass(frozen=True)
class Seed:
    """A file that its decoder takes."""

    name: str
    kind: Kind
    data: bytes


def seeds() -> list[Seed]:
    """All of them, the same on every machine but for what encoders of other versions write."""
    return [*_pictures(), *_documents(), *_clips(), *_others()]


OTHERS: dict[Kind, tuple[Mapping[str, Make], tuple[str, ...]]] = {
    "picture": (media_files.PICTURES, ("HEIC", "AVIF", "animated AVIF", "BMP", "DIB", "TIFF")),
    "clip": (media_files.CLIPS, ("PNG", "WebP", "animated AVIF", "MPEG-TS", "MPEG", "3GP")),
    "document": (media_files.DOCUMENTS, ("TIFF",)),
}
"""Formats whose files are made elsewhere."""


def _others() -> Iterator[Seed]:
    for kind, (files, names) in OTHERS.items():
        for name, make in files.items():
            if name.partition(",")[0] in names and name != "HEIC, in tiles":  # which is large
                found = next(one for one in FORMATS if one.name == name.partition(",")[0])
                title = "-".join(re.findall(r"\w+", name.lower()))
                yield Seed(f"{kind}-{title}{found.endings[0]}", kind, make())


# ---- Pictures ---------------------------------------------------------------------------------------


def noise(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Noise in 8 x 8 squares, so that files are small and yet no two places are alike."""
    squares = np.random.default_rng(11).integers(0, 256, (height // 8, width // 8, 4), dtype=np.uint8)
    return Image.fromarray(squares.repeat(8, 0).repeat(8, 1), "RGBA").convert(mode)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def _pictures() -> Iterator[Seed]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    profile = bytes(range(256)) * 3
    frames = [noise(), noise().rotate(90), noise().rotate(180)]
    deep = Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10)
    animated = {"save_all": True, "append_images": frames[1:], "duration": 40}
    files: dict[str, Callable[[], bytes]] = {
        "baseline.jpg": lambda: save(noise(), "JPEG", exif=exif, icc_profile=profile, comment=b"comment"),
        "progressive.jpg": lambda: save(noise(), "JPEG", progressive=True, subsampling=0),
        "restarts.jpg": lambda: save(noise(), "JPEG", restart_marker_blocks=2, quality=95),
        "grey.jpg": lambda: save(noise(mode="L"), "JPEG"),
        "cmyk.jpg": lambda: save(noise(mode="CMYK"), "JPEG"),
        "rgb.png": lambda: save(noise(), "PNG", exif=exif, icc_profile=profile),
        "rgba.png": lambda: save(noise(mode="RGBA"), "PNG"),
        "palette.png": lambda: save(noise().quantize(16), "PNG", transparency=3, bits=4),
        "deep.png": lambda: save(deep, "PNG"),
        "bits.png": lambda: save(noise(mode="1"), "PNG"),
        "animated.png": lambda: save(frames[0], "PNG", **animated),
        "lossy.webp": lambda: save(noise(), "WEBP", exif=exif),
        "lossless.webp": lambda: save(noise(mode="RGBA"), "WEBP", lossless=True),
        "animated.webp": lambda: save(frames[0], "WEBP", **animated),
        "still.gif": lambda: save(noise().quantize(32), "GIF", transparency=1, comment=b"comment"),
        "animated.gif": lambda: save(frames[0], "GIF", **animated),
    }
    for name, write in files.items():
        yield Seed(name, "picture", write())


# ---- Documents --------------------------------------------------------------------------------------

_CONTENT = b"""q 1 0 0 rg 10 10 50 50 re f Q
q .5 w [3 2] 0 d 0 0 m 60 90 120 -20 190 90 c S Q
BT /F 18 Tf 1 0 0 1 20 60 Tm (Text \\330) Tj 0 -20 Td [(A) -80 (V)] TJ ET
q 60 0 0 40 120 20 cm /P Do Q q 0 0 100 100 re W n /S sh Q
/G gs /Pattern cs /T scn 100 50 80 30 re f /X Do"""
_RESOURCES = (
    b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>/XObject<</P 10 0 R/X 11 0 R>>"
    b"/ExtGState<</G<</ca .5/BM/Multiply/SMask<</S/Luminosity/G 11 0 R>>>>>>/Pattern<</T 12 0 R>>/Shading<</S 13 0 R>>"
    b">>"
)
_ANNOTATIONS = b"/Annots[14 0 R<</Type/Annot/Subtype/Square/Rect[5 5 40 40]/C[1 0 0]>>]/Rotate 90/CropBox[0 0 190 90]"
_FUNCTION = b"<</FunctionType 2/Domain[0 1]/C0[1 0 0]/C1[0 0 1]/N 1>>"


def _rich_document() -> bytes:
    """A page with something of nearly everything that PDFium draws."""
    parts = [
        stream(
            noise(16, 16).tobytes(),
            b"/Type/XObject/Subtype/Image/Width 16/Height 16/BitsPerComponent 8/ColorSpace/DeviceRGB",
            packed=True,
        ),
        form(b"0 0 1 rg 150 70 30 20 re f /X Do", b"/Group<</S/Transparency/I true>>/Matrix[1 0 0 1 0 0]"),
        stream(
            b"0 1 0 rg 0 0 3 3 re f",
            b"/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 5 5]/XStep 6/YStep 6/Resources<<>>",
        ),
        b"<</ShadingType 2/ColorSpace/DeviceRGB/Coords[0 0 100 0]/Function %b/Extend[true false]>>" % _FUNCTION,
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(value)/DA(/F 9 Tf 0 g)/Rect[60 10 120 30]/F 4/AP<</N 15 0 R>>>>",
        form(b"/Tx BMC BT /F 9 Tf 2 2 Td (value) Tj ET EMC", box=b"0 0 60 20"),
    ]
    fields = b"/AcroForm<</Fields[14 0 R]/DA(/F 9 Tf 0 g)/NeedAppearances true>>/Outlines<</First 2 0 R>>"
    return document(_CONTENT, b"", _CONTENT, page=_RESOURCES + _ANNOTATIONS, more=parts, catalogue=fields)


def _written_document() -> bytes:
    """A page that leaves to its reader how it looks: notes in Arabic, letters without a font, a large unit."""
    text = b"<%b>" % ("\ufeffمرحبا بالعالم 123".encode("utf-16-be")).hex().encode()
    look = b"/DA(/Helv 12 Tf 0 0 1 rg)/F 4/MK<</BC[1 0 0]/BG[1 1 0]>>"
    return document(
        b"BT /A 20 Tf 9 70 Td (ABC) Tj ET BT /Helv 9 Tf 9 50 Td (Latin) Tj ET",
        page=b"/UserUnit 1.5/Rotate 90/Annots[10 0 R 11 0 R 12 0 R]/Resources<</Font<</Helv 13 0 R/A 14 0 R>>>>",
        catalogue=b"/AcroForm<</NeedAppearances true/Fields[10 0 R 11 0 R]/DR<</Font<</Helv 13 0 R>>>>>>",
        more=[
            b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V %b/Rect[9 9 99 29]%b>>" % (text, look),
            b"<</Type/Annot/Subtype/Widget/FT/Tx/Ff 4096/Q 2/T(b)/V %b/Rect[99 9 150 90]%b>>" % (text, look),
            b"<</Type/Annot/Subtype/FreeText/Contents %b/Rect[150 9 199 90]%b>>" % (text, look),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
            b"<</Type/Font/Subtype/TrueType/BaseFont/Arial/FirstChar 65/LastChar 67/Widths[600 600 600]"
            b"/Encoding<</Type/Encoding/Differences[65/afii10031/uni0645/Lslash]>>>>",
        ],
    )


def _packed_document() -> bytes:
    """Objects inside an object stream and a cross-reference stream, as most programs write them today."""
    inner = {1: b"<</Type/Catalog/Pages 2 0 R>>", 2: b"<</Type/Pages/Count 1/Kids[3 0 R]>>"}
    inner[3] = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R>>"
    places, bodies = b"", b""
    for number, content in inner.items():
        places += b"%d %d " % (number, len(bodies))
        bodies += content + b" "
    packed = stream(places + bodies, b"/Type/ObjStm/N 3/First %d" % len(places), packed=True)
    page = stream(b"1 0 0 rg 0 0 50 50 re f", packed=True)
    whole = assemble({4: page, 5: packed})
    file = whole[: whole.index(b"xref\n")]
    at = {number: file.index(b"%d 0 obj" % number) for number in (4, 5)}
    rows = [(0, 0, 255), (2, 5, 0), (2, 5, 1), (2, 5, 2), (1, at[4], 0), (1, at[5], 0), (1, len(file), 0)]
    table = b"".join(kind.to_bytes(1) + value.to_bytes(2) + rest.to_bytes(1) for kind, value, rest in rows)
    entries = b"/Type/XRef/Size 7/W[1 2 1]/Root 1 0 R"
    return file + b"6 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF\n" % (stream(table, entries), len(file))


def _documents() -> Iterator[Seed]:
    scan = save(noise(160, 96), "PDF", save_all=True, append_images=[noise(mode="L"), noise(mode="1")])
    yield Seed("rich.pdf", "document", _rich_document())
    yield Seed("packed.pdf", "document", _packed_document())
    yield Seed("written.pdf", "document", _written_document())
    yield Seed("encrypted.pdf", "document", encrypted(b"1 0 0 rg 0 0 50 50 re f"))
    yield Seed("scan.pdf", "document", scan)


# ---- Clips ------------------------------------------------------------------------------------------


def _clips() -> Iterator[Seed]:
    for name, codec, options in (
        ("clip.mp4", "libx264", {"g": "4", "bf": "2", "preset": "ultrafast"}),
        ("old.mp4", "mpeg4", {"g": "4"}),
        ("clip.webm", "libvpx-vp9", {"deadline": "realtime"}),
        ("old.webm", "libvpx", {"deadline": "realtime"}),
        ("clip.mkv", "libx264", {"preset": "ultrafast"}),
        ("clip.avi", "mjpeg", {}),
    ):
        if codec in av.codecs_available:
            yield Seed(name, "clip", _film(name, codec, options))
    frames = [noise(64, 48).rotate(30 * turn) for turn in range(6)]
    yield Seed("clip.gif", "clip", save(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100))


def _film(name: str, codec: str, options: dict[str, str]) -> bytes:
    """Eight frames of noise that shifts."""
    target = io.BytesIO()
    still = np.asarray(noise(64, 48))
    with av.open(target, "w", format={"mkv": "matroska"}.get(name[-3:], name.rpartition(".")[2])) as container:
        track = container.add_stream(codec, rate=4, options=options)
        assert isinstance(track, VideoStream)
        track.width, track.height = 64, 48
        track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for shift in range(8):
            frame = av.VideoFrame.from_ndarray(np.roll(still, 4 * shift, 1), format="rgb24")
            container.mux(track.encode(frame))
        container.mux(track.encode())
    return target.getvalue()

"""Every format that is read: how its files begin, the names people send it under, what it becomes, and what reads it.

The one table of formats. What a file is, its first bytes say; names only ever help people. Nothing here decodes, so the
server itself may ask, before a worker is given anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from server.errors import BadRequest, MediaKind, invalid_media

HEAD_BYTES = 1 << 11
"""First bytes of a file that tell what it is."""
PDF_WITHIN = 1024
"""Bytes within which a PDF says so: some programs write a few of their own before it (Acrobat's own rule)."""


class Becomes(StrEnum):
    """What a file is to the model."""

    PICTURE = "picture"
    PAGES = "pages"
    CLIP = "clip"


class Decoder(StrEnum):
    """The libraries that read files."""

    PILLOW = "Pillow"
    LIBHEIF = "libheif"
    FFMPEG = "FFmpeg"
    PDFIUM = "PDFium"


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of file. `picture`, `pages` and `clip` name the library that makes each of it, where it can be that."""

    name: str
    """As people call it."""
    signature: re.Pattern[bytes]
    """Matches how a file begins; the first format of the table whose signature matches is what a file is."""
    media_types: tuple[str, ...]
    endings: tuple[str, ...]
    """Of file names."""
    picture: Decoder | None = None
    pages: Decoder | None = None
    clip: Decoder | None = None
    plugin: str = ""
    """Pillow's own name for it."""
    demuxer: str = ""
    """FFmpeg's."""

    @property
    def becomes(self) -> tuple[Becomes, ...]:
        """All that it can be."""
        made = {Becomes.PICTURE: self.picture, Becomes.PAGES: self.pages, Becomes.CLIP: self.clip}
        return tuple(one for one, decoder in made.items() if decoder)


def _begins(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


def _brand(first: bytes, also: bytes) -> re.Pattern[bytes]:
    """The `ftyp` box of a file whose own brand is `first`, or a general one with `also` among the others.

    ISO 14496-12, 4.3; the general brands are those of ISO 23008-12, 10.2 and 10.3.
    """
    return _begins(b"....ftyp(?:%b|(?:mif[12]|msf1|miaf)....(?:....){0,30}?%b)" % (first, also))


_PICTURE_BRANDS = rb"avi[fs]|hei[cxms]|hev[cxms]|mif[12]|msf1|miaf"
_DIB_SIZES = rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
"""Sizes of the headers that Windows and OS/2 have given a bitmap, which tell its version."""

PDF = Format(
    "PDF",
    _begins(rb".{0,%d}?%%PDF-" % (PDF_WITHIN - 5)),
    ("application/pdf", "application/x-pdf"),
    (".pdf",),
    pages=Decoder.PDFIUM,
)
FORMATS: tuple[Format, ...] = (
    Format(
        "JPEG",
        _begins(rb"\xff\xd8\xff"),
        ("image/jpeg", "image/jpg", "image/pjpeg", "image/jfif", "image/mpo"),
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        picture=Decoder.PILLOW,
        plugin="JPEG",
    ),
    Format(
        "PNG",
        _begins(rb"\x89PNG\r\n\x1a\n"),
        ("image/png", "image/x-png", "image/apng", "image/vnd.mozilla.apng"),
        (".png", ".apng"),
        picture=Decoder.PILLOW,
        clip=Decoder.PILLOW,
        plugin="PNG",
    ),
    Format(
        "WebP",
        _begins(rb"RIFF.{4}WEBP"),
        ("image/webp",),
        (".webp",),
        picture=Decoder.PILLOW,
        clip=Decoder.PILLOW,
        plugin="WEBP",
    ),
    Format(
        "GIF",
        _begins(rb"GIF8[79]a"),
        ("image/gif",),
        (".gif",),
        picture=Decoder.PILLOW,
        clip=Decoder.FFMPEG,
        plugin="GIF",
        demuxer="gif",
    ),
    Format(
        "HEIC",
        _brand(rb"(?:hei[cxms]|hev[cxms])", rb"(?:hei[cxms]|hev[cxms])"),
        ("image/heic", "image/heif", "image/heic-sequence", "image/heif-sequence"),
        (".heic", ".heif", ".hif"),
        picture=Decoder.LIBHEIF,
    ),
    Format(
        "animated AVIF",
        _brand(rb"avis", rb"avis"),
        ("image/avif-sequence",),
        (".avifs",),
        picture=Decoder.PILLOW,
        clip=Decoder.FFMPEG,
        plugin="AVIF",
        demuxer="mov",
    ),
    Format(
        "AVIF",
        _brand(rb"avif", rb"avif"),
        ("image/avif",),
        (".avif",),
        picture=Decoder.PILLOW,
        plugin="AVIF",
    ),
    Format(
        "TIFF",
        _begins(rb"II[*+]\0|MM\0[*+]"),
        ("image/tiff", "image/tif", "image/x-tiff", "image/tiff-fx"),
        (".tif", ".tiff"),
        picture=Decoder.PILLOW,
        pages=Decoder.PILLOW,
        plugin="TIFF",
    ),
    Format(
        "BMP",
        _begins(rb"BM.{12}" + _DIB_SIZES),
        ("image/bmp", "image/x-bmp", "image/x-ms-bmp", "image/x-windows-bmp"),
        (".bmp", ".dib", ".rle"),
        picture=Decoder.PILLOW,
        plugin="BMP",
    ),
    Format(
        "DIB",  # a bitmap without its file's header, as it is in Windows' clipboard
        _begins(rb"(?:\x0c\0\0\0.{4}|(?!\x0c)" + _DIB_SIZES + rb".{8})\x01\0[\x01\x04\x08\x10\x18\x20]\0"),
        ("image/dib", "image/x-dib"),
        (".dib",),
        picture=Decoder.PILLOW,
        plugin="DIB",
    ),
    Format(
        "MP4",
        _begins(rb".{4}ftyp(?!" + _PICTURE_BRANDS + rb"|qt  |3g|crx )"),
        ("video/mp4", "video/x-m4v", "application/mp4"),
        (".mp4", ".m4v"),
        clip=Decoder.FFMPEG,
        demuxer="mov",
    ),
    Format(
        "MOV",
        _begins(rb".{4}(?:ftypqt  |moov|mdat|wide|free|skip|pnot)"),
        ("video/quicktime",),
        (".mov", ".qt"),
        clip=Decoder.FFMPEG,
        demuxer="mov",
    ),
    Format(
        "3GP",
        _begins(rb".{4}ftyp3g"),
        ("video/3gpp", "video/3gpp2"),
        (".3gp", ".3g2"),
        clip=Decoder.FFMPEG,
        demuxer="mov",
    ),
    Format(
        "WebM",
        _begins(rb"\x1aE\xdf\xa3.{1,60}?\x42\x82.{1,8}?webm"),
        ("video/webm",),
        (".webm",),
        clip=Decoder.FFMPEG,
        demuxer="matroska",
    ),
    Format(
        "MKV",
        _begins(rb"\x1aE\xdf\xa3"),
        ("video/x-matroska", "video/matroska"),
        (".mkv",),
        clip=Decoder.FFMPEG,
        demuxer="matroska",
    ),
    Format(
        "AVI",
        _begins(rb"RIFF.{4}AVI "),
        ("video/x-msvideo", "video/avi", "video/vnd.avi", "video/msvideo"),
        (".avi",),
        clip=Decoder.FFMPEG,
        demuxer="avi",
    ),
    Format(
        "MPEG-TS",
        # Packets of 188 bytes; camcorders and Blu-ray put a time before each, and broadcasts a checksum behind.
        _begins(rb"G.{187}G.{187}G|.{4}G.{191}G.{191}G|G.{203}G.{203}G"),
        ("video/mp2t", "video/mpeg-ts"),
        (".ts", ".mts", ".m2ts", ".m2t"),
        clip=Decoder.FFMPEG,
        demuxer="mpegts",
    ),
    Format(
        "MPEG",
        _begins(rb"\0\0\x01\xba"),
        ("video/mpeg", "video/mp2p", "video/x-mpeg"),
        (".mpg", ".mpeg", ".vob", ".m2p"),
        clip=Decoder.FFMPEG,
        demuxer="mpeg",
    ),
    PDF,
)
"""Every format, in the order in which files are asked whether they are one."""

_STARTS_XML = rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,400}?-->\s*)?"
FOREIGN: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(_STARTS_XML + rb"(?:<!doctype svg[^>]*>\s*)?<svg", re.IGNORECASE | re.DOTALL), "an SVG drawing"),
    (re.compile(_STARTS_XML + rb"<(?:MPD|SmoothStreamingMedia)", re.DOTALL), "a playlist"),
    (re.compile(rb"\s*(?:#EXTM3U|ffconcat version)"), "a playlist"),
    (re.compile(rb"\s*<(?:!doctype html|html|head|body)", re.IGNORECASE), "an HTML page"),
    (_begins(rb"8BPS"), "a Photoshop document"),
    (_begins(rb"%!PS|\xc5\xd0\xd3\xc6"), "a PostScript document"),
    (_begins(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 picture"),
    (_begins(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL picture"),
    (_begins(rb"\0\0[\x01\x02]\0[\x01-\x40]\0"), "an icon"),
    (_begins(rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIRO|IIRS|IIU\0"), "a camera's raw picture"),
    (_begins(rb".{4}ftyp"), "a picture of a kind of HEIF"),
    (_begins(rb"FLV\x01"), "a Flash video"),
    (_begins(rb"0&\xb2u\x8ef\xcf\x11"), "a Windows Media file"),
    (_begins(rb"OggS"), "an Ogg file"),
    (_begins(rb"ID3|RIFF.{4}WAVE|fLaC|\xff[\xf2\xf3\xfb]"), "a sound file"),
    (_begins(rb"PK\x03\x04.{26}(?:word/|\[Content_Types\]|_rels/|docProps/|xl/|ppt/)"), "an Office document"),
    (_begins(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an Office document"),
    (_begins(rb"PK\x03\x04"), "a ZIP archive"),
)
"""Files of which only the name is known, so that the refusal can say it."""

FITS: dict[MediaKind, tuple[Becomes, ...]] = {
    "image": (Becomes.PAGES, Becomes.PICTURE, Becomes.CLIP),
    "video": (Becomes.CLIP, Becomes.PICTURE),
    "file": (Becomes.PAGES, Becomes.PICTURE, Becomes.CLIP),
}
"""What may stand in a part of each kind; what a file can be of several, it is the first of."""
MADE_FOR: dict[MediaKind, Becomes] = {"image": Becomes.PICTURE, "video": Becomes.CLIP, "file": Becomes.PAGES}
"""What a part of each kind is made for."""


def recognised(head: bytes | memoryview) -> Format | None:
    """What a file is that begins with `head`, of which HEAD_BYTES are enough; None for nothing that is read."""
    return next((one for one in FORMATS if one.signature.match(head)), None)


def foreign_name(head: bytes | memoryview) -> str | None:
    """What a file is that is not read, with its article, where that is known."""
    return next((name for signature, name in FOREIGN if signature.match(head)), None)


def made_of(found: Format, kind: MediaKind) -> Becomes | None:
    """What a file becomes in a part of a kind; None where it has no place there."""
    return next((made for made in FITS[kind] if made in found.becomes), None)


def that_become(*wanted: Becomes) -> tuple[Format, ...]:
    """The formats that can be one of these; first those that are it before anything else."""
    found = (one for one in FORMATS if any(made in wanted for made in one.becomes))
    return tuple(sorted(found, key=lambda one: one.becomes[0] not in wanted))


def advice(kind: MediaKind) -> str:
    """What to send instead, for the end of a refusal: `supported are PDF or TIFF.`"""
    *most, last = (one.name for one in that_become(MADE_FOR[kind]))
    return f"supported are {', '.join(most)} or {last}."


def unknown(head: bytes | memoryview, kind: MediaKind, param: str | None) -> BadRequest:
    """The error for a file that begins with `head` and is of no format in the table.

    Its code is that of the kind: empty_image_file, unsupported_image_media_type (another format that we recognise), or
    invalid_image_format (nothing that we recognise).
    """
    if not head:
        return invalid_media(kind, "The file is empty.", code="empty_image_file", param=param)
    name = foreign_name(head)
    if name is not None:
        message = f"The file is {name}: {advice(kind)}"
        return invalid_media(kind, message, code="unsupported_image_media_type", param=param)
    message = f"The file is of no known format: {advice(kind)}"
    return invalid_media(kind, message, code="invalid_image_format", param=param)


def misplaced(found: Format, kind: MediaKind, param: str | None) -> BadRequest:
    """The error for a file that a part of this kind cannot hold."""
    article = "an" if found.name[0] in "AM" and found.name != "MOV" else "a"
    what = " or ".join(found.becomes)
    message = f"The file is {article} {found.name}, which becomes {what} and has no place here: {advice(kind)}"
    return invalid_media(kind, message, code="unsupported_image_media_type", param=param)

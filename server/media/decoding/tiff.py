"""The pages of a TIFF file: its directories are read here, and each page is given to Pillow as a file of its own.

TIFF is what scanners and fax machines write, one directory for each page (TIFF 6.0, section 2; BigTIFF has the same
with numbers of 8 bytes). Pillow's reader unpacks every entry of a directory, however large and however useless: it gets
a directory with what makes up the pixels and nothing else, which is also how it is shown a page that is not the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, SUB_DIRECTORIES, DNG_VERSION = 274, 277, 330, 50706
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: a directory that is a preview or a mask of another, and no page."""
KEPT = frozenset(
    {
        *(WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, STRIP_OFFSETS, TILE_OFFSETS),
        *(266, 278, 279, 284, 292, 293, 317, 320, 322, 323, 325, 332, 338, 339, 347),
        *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532),
    }
)
"""Tags of what makes up the pixels: size, samples, colours, strips and tiles, and what each compression needs."""
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value of each type."""
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
MAX_DIRECTORIES = 10_000
MAX_ENTRIES = 100_000
"""Of all directories together; each costs a step of a loop in Python, and real ones have about 20."""
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1


class NotTiff(Exception):
    """The file is damaged, or built to be slow."""


class CameraRaw(Exception):
    """The file is a camera's raw picture, of which this format can show a preview and no more."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How numbers are written."""

    order: str
    """As in struct."""
    big: bool

    @property
    def count(self) -> str:
        """Of the number of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """Tag, type, number of values; then come the values, or where they are."""
        return self.order + ("HHQ" if self.big else "HHI")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    @property
    def entry_size(self) -> int:
        return 20 if self.big else 12

    @property
    def header_size(self) -> int:
        return 16 if self.big else 8


@dataclass(frozen=True, slots=True)
class Page:
    """One directory: its entries as they stand in the file, by tag, and the small numbers among them."""

    layout: Layout
    entries: Mapping[int, bytes]
    numbers: Mapping[int, int]

    @property
    def width(self) -> int:
        """Pixels across as stored; 0 where it is not said."""
        return self.numbers.get(WIDTH, 0)

    @property
    def height(self) -> int:
        return self.numbers.get(HEIGHT, 0)

    @property
    def orientation(self) -> int:
        """As in EXIF, which has it from here."""
        said = self.numbers.get(ORIENTATION, 1)
        return said if 1 <= said <= 8 else 1

    @property
    def is_deep(self) -> bool:
        """Whether a pixel is one number of 16 bits."""
        return self.numbers.get(BITS) == 16 and self.numbers.get(SAMPLES, 1) == 1

    @property
    def is_negative(self) -> bool:
        """Whether 0 is white."""
        return self.numbers.get(PHOTOMETRIC, 0) == WHITE_IS_ZERO


def read_pages(data: bytes) -> list[Page]:
    """The directories of a file that are pages, in order. No pixel is read.

    Raises NotTiff, and CameraRaw.
    """
    directories = list(_directories(data))
    if not directories:
        raise NotTiff
    pages = [one for one in directories if not one.numbers.get(NEW_SUBFILE_TYPE, 0) & (REDUCED | MASK)]
    hides_more = not pages and SUB_DIRECTORIES in directories[0].entries
    if hides_more or any(DNG_VERSION in one.entries for one in directories):
        raise CameraRaw
    return pages or directories


def file_of(data: bytes, page: Page, *, upright: bool = False, positive: bool = False) -> bytes:
    """A file whose only directory is that of `page`, without metadata; its pixels stay where they were.

    `upright`: without its orientation. `positive`: as if 0 were black.
    """
    layout = page.layout
    kept = KEPT - {ORIENTATION} if upright else KEPT
    entries = {tag: entry for tag, entry in page.entries.items() if tag in kept}
    if positive:
        entries[PHOTOMETRIC] = _short(layout, PHOTOMETRIC, BLACK_IS_ZERO)
    start = len(data) + len(data) % 2
    directory = struct.pack(layout.count, len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    place = layout.header_size - struct.calcsize(layout.offset)
    return b"".join(
        (
            data[:place],
            struct.pack(layout.offset, start),
            memoryview(data)[layout.header_size :],
            bytes(start - len(data)),
            directory,
            bytes(struct.calcsize(layout.offset)),
        )
    )


def _short(layout: Layout, tag: int, value: int) -> bytes:
    entry = struct.pack(layout.entry, tag, 3, 1) + struct.pack(layout.order + "H", value)
    return entry.ljust(layout.entry_size, b"\0")


def _directories(data: bytes) -> Iterator[Page]:
    layout = Layout("<" if data[:2] == b"II" else ">", big=b"+" in data[2:4])
    left, seen = MAX_ENTRIES, set[int]()
    try:
        (at,) = struct.unpack_from(layout.offset, data, layout.header_size - struct.calcsize(layout.offset))
        while at and at not in seen:
            seen.add(at)
            (count,) = struct.unpack_from(layout.count, data, at)
            left -= count
            if left < 0 or len(seen) > MAX_DIRECTORIES:
                raise NotTiff
            first = at + struct.calcsize(layout.count)
            yield _page(data, layout, first, count)
            (at,) = struct.unpack_from(layout.offset, data, first + count * layout.entry_size)
    except (struct.error, OverflowError):
        raise NotTiff from None


def _page(data: bytes, layout: Layout, first: int, count: int) -> Page:
    entries: dict[int, bytes] = {}
    numbers: dict[int, int] = {}
    size = 0
    head = struct.Struct(layout.entry)
    for at in range(first, first + count * layout.entry_size, layout.entry_size):
        tag, kind, values = head.unpack_from(data, at)
        entry = data[at : at + layout.entry_size]
        if len(entry) < layout.entry_size:
            raise NotTiff
        if tag in entries:
            continue
        entries[tag] = entry
        if tag in KEPT:
            size += SIZES.get(kind, 1) * values
        if values == 1 and kind in INTEGERS:
            (numbers[tag],) = struct.unpack_from(layout.order + INTEGERS[kind], entry, head.size)
    if size > len(data):  # values that lie one over the other, many times
        raise NotTiff
    return Page(layout, entries, numbers)

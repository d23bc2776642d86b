"""What became of a request's media, as `media_info` in a reply."""

from __future__ import annotations

from collections.abc import Sequence

from server.core import MediaFact


def media_info(facts: Sequence[MediaFact]) -> list[dict[str, object]]:
    """One object for each picture, clip and page, in reading order; sizes in pixels."""
    return [_entry(fact) for fact in facts]


def _entry(fact: MediaFact) -> dict[str, object]:
    entry: dict[str, object] = {
        "param": fact.param,
        "type": fact.kind,
        "original_size": _size(fact.original_size),
        "resized_size": _size(fact.resized_size),
        "tokens": fact.tokens,
    }
    only_some = {"page": fact.page, "frames": fact.frames, "fps": fact.fps, "warnings": fact.warnings or None}
    return entry | {name: value for name, value in only_some.items() if value is not None}


def _size(size: tuple[int, int]) -> dict[str, int]:
    width, height = size
    return {"width": width, "height": height}

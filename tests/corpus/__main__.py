"""Posts every file of a folder to a server, and says of each whether it makes of it what the reference does.

    python -m tests.corpus FOLDER [--url http://127.0.0.1:8000 --key KEY]

Without a URL the server is made here, with a scripted engine, so that nothing but files is tried. The reference is
Pillow (over white, upright), libheif's binding, pypdfium2 and PyAV. Compared are the sizes of pictures, pages and
frames, their tokens, and in process the pixels of pictures that are not too large. Writes build/corpus.json; the status
is 1 where a file differs, or is refused although the reference reads it.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from server.core import PixelBudget
from server.errors import ApiError
from server.media.decoding.decode import open_picture
from server.media.limits import DecodeLimits
from server.media.pixels import PixelLimits, target_size
from tests.api.house import CHAT, open_house
from tests.corpus.reference import Seen, seen

BUDGET: Final = PixelBudget(max_pixels=256 * 784)
MAX_PAGES: Final = 16
KEEP: Final = Path("build/corpus.json")
CALLED: Final = {"image": "image_url", "video": "video_url"}
Fate = str
FATES: Final = ("equal", "differs", "refused", "more than the reference", "read by neither")


@dataclass(frozen=True)
class Verdict:
    """What became of a file, one of FATES, and in which words."""

    file: str
    fate: Fate
    detail: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.fate in ("differs", "refused")


def judge(http: httpx.Client, file: str, data: bytes, model: str) -> Verdict:
    """Post a file in the part that it belongs into, without telling what it is, and compare."""
    expected = seen(data)
    reply = http.post(CHAT, json=_request(data, expected.kind if expected else "image", model))
    if reply.status_code != 200:
        error = reply.json()["error"]
        fate = "refused" if expected else "read by neither"
        return Verdict(file, fate, f"{error['code']}: {error['message']}")
    if expected is None:
        return Verdict(file, "more than the reference")
    wrong = [*_differences(expected, reply.json()["media_info"]), *_pixel_differences(expected, data)]
    return Verdict(file, "differs" if wrong else "equal", "; ".join(wrong))


def _request(data: bytes, kind: str, model: str) -> dict[str, Any]:
    url = f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"
    part: dict[str, Any] = {"type": "file", "file": {"file_data": url}, "max_pixels": BUDGET.max_pixels}
    if kind != "file":
        name = CALLED[kind]
        part = {"type": name, name: {"url": url}, "max_pixels": BUDGET.max_pixels}
    content = [part, {"type": "text", "text": "What is this?"}]
    return {
        "model": model,
        "max_tokens": 1,
        "return_media_info": True,
        "messages": [{"role": "user", "content": content}],
    }


def _differences(expected: Seen, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    if len(found) != len(expected.sizes):
        yield f"{len(found)} pictures for {len(expected.sizes)}"
    for entry, size in zip(found, expected.sizes, strict=False):
        got = entry["original_size"]["width"], entry["original_size"]["height"]
        if got != size:
            yield f"{got[0]}x{got[1]} for {size[0]}x{size[1]}"
        elif expected.kind != "video":
            height, width = target_size(size[1], size[0], BUDGET, PixelLimits())
            if entry["tokens"] != height * width // 784:
                yield f"{entry['tokens']} tokens for {height * width // 784}"


def _pixel_differences(expected: Seen, data: bytes) -> Iterator[str]:
    if expected.pixels is None:
        return
    try:
        pixels = open_picture(data, DecodeLimits()).pixels()
    except ApiError as error:
        yield f"here refused: {error.message}"
        return
    if pixels.shape == expected.pixels.shape and not np.array_equal(pixels, expected.pixels):
        difference = np.abs(pixels.astype(int) - expected.pixels)
        yield f"pixels differ by {difference.mean():.2f} levels, at most {difference.max()}"


def judged(http: httpx.Client, folder: Path, model: str) -> Iterator[Verdict]:
    """Every file of a folder and the folders in it, in the order of their names."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield judge(http, str(path.relative_to(folder)), path.read_bytes(), model)


@contextlib.contextmanager
def _server(options: argparse.Namespace) -> Iterator[tuple[httpx.Client, Callable[[], None]]]:
    """A client, and what makes the server forget the last request."""
    if options.url is None:
        with open_house(max_pages=MAX_PAGES) as house:
            yield house.http, house.engine.requests.clear
        return
    headers = {"authorization": f"Bearer {options.key}"} if options.key else {}
    with httpx.Client(base_url=options.url, headers=headers, timeout=120) as http:
        yield http, lambda: None


def main() -> int:
    """Try all files; the exit status."""
    options = _options()
    verdicts = []
    with _server(options) as (http, forget):
        model = http.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        for verdict in judged(http, options.folder, model):
            forget()
            verdicts.append(verdict)
            if verdict.fate != "equal":
                print(f"{verdict.fate:24} {verdict.file}: {verdict.detail}", flush=True)
    counted = Counter(verdict.fate for verdict in verdicts)
    print(f"{len(verdicts)} files: {', '.join(f'{counted[fate]} {fate}' for fate in FATES if counted[fate])}")
    KEEP.parent.mkdir(exist_ok=True)
    KEEP.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1, ensure_ascii=False))
    return 1 if any(verdict.is_wrong for verdict in verdicts) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="whose files are posted, those in folders below it too")
    parser.add_argument("--url", help="of a server that runs; otherwise one is made")
    parser.add_argument("--key", help="its API key")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

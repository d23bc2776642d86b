"""Chats to packed batches: all sequences of a batch end to end, so that no time goes into padding."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.sharedctypes import Synchronized

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from server.demo.conversation import Chat, Turn, vary
from server.demo.drawing import wear
from server.demo.lessons import lesson
from server.demo.patches import (
    MAX_CLIP_PIXELS,
    Bytes,
    Grid,
    clip_patches,
    fit,
    image_patches,
    patch_places,
    token_places,
)
from server.demo.pictures import Sample
from server.demo.tokens import build_tokenizer, special_ids
from server.demo.words import Words

Ints = NDArray[np.int64]


@dataclass
class Packed:
    """A batch. Vision comes in two runs: stills, then clips."""

    stills: Tensor  # uint8 (patches, 3, 196)
    clips: Tensor  # uint8 (patches, 3, 2, 196)
    patch_places: Tensor  # (patches, 2): row, column
    patch_bounds: Tensor  # int32: where each picture or time step begins, and the end
    vision_slots: Tensor  # index in `ids` of every vision token
    ids: Tensor  # (tokens,)
    places: Tensor  # (3, tokens): time, row, column
    bounds: Tensor  # int32: where each sequence begins, and the end
    answer_slots: Tensor  # index in `ids` of every token whose successor is to be learnt
    answers: Tensor  # those successors
    longest_picture: int
    longest_text: int
    tasks: list[str]

    def to(self, device: torch.device) -> "Packed":
        """The same batch on a device."""
        moved = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if torch.is_tensor(value)
        }
        return Packed(**{**vars(self), **moved})

    def pin_memory(self) -> "Packed":
        """Called by the loader, for fast copies to a GPU."""
        pinned = {name: value.pin_memory() for name, value in vars(self).items() if torch.is_tensor(value)}
        return Packed(**{**vars(self), **pinned})


@dataclass
class _Vision:
    """The pictures of one turn: bytes, grid and whether they are a clip."""

    data: Bytes
    grid: Grid
    is_clip: bool


class Encoder:
    """Tokens, positions and targets of chats."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer or build_tokenizer()
        ids = special_ids(self.tokenizer)
        self.start, self.end = ids["<|im_start|>"], ids["<|im_end|>"]
        self.vision_start, self.vision_end = ids["<|vision_start|>"], ids["<|vision_end|>"]
        self.image_pad, self.video_pad = ids["<|image_pad|>"], ids["<|video_pad|>"]
        self.text: Callable[[str], tuple[int, ...]] = lru_cache(maxsize=100_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, chat: Chat) -> "Row":
        """One chat as a sequence; only the assistant's answers are targets."""
        row = Row()
        row.say((self.start, *self.text(f"system\n{chat.system}"), self.end, *self.text("\n")))
        for turn in chat.turns:
            self._ask(row, turn)
            row.say((self.start, *self.text("assistant\n")))
            row.say((*self.text(turn.answer), self.end), learn=True)
            row.say(self.text("\n"))
        return row

    def _ask(self, row: "Row", turn: Turn) -> None:
        row.say((self.start,))
        row.say(self.text(f"user\n{turn.prompt}" if turn.question_first else "user\n"))
        for vision in _visions(turn):
            row.say((self.vision_start,))
            row.show(vision, self.video_pad if vision.is_clip else self.image_pad)
            row.say((self.vision_end,))
        row.say(() if turn.question_first else self.text(turn.prompt))
        row.say((self.end, *self.text("\n")))


def _visions(turn: Turn) -> Iterator[_Vision]:
    if turn.clip:
        yield _Vision(*clip_patches([fit(frame, MAX_CLIP_PIXELS) for frame in turn.clip]), is_clip=True)
    for picture in turn.images:
        yield _Vision(*image_patches(fit(picture)), is_clip=False)


class Row:
    """Tokens of one chat while it grows."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.learn: list[bool] = []
        self.places: list[Ints] = []
        self.visions: list[_Vision] = []
        self.slots: list[Ints] = []
        self._next = 0  # the next position in all three axes

    def say(self, ids: Sequence[int], learn: bool = False) -> None:
        """Append text."""
        count = len(ids)
        self.ids += ids
        self.learn += [learn] * count
        places = np.empty((3, count), np.int64)
        places[:] = np.arange(self._next, self._next + count)
        self.places.append(places)
        self._next += count

    def answer_slots(self) -> Ints:
        """Places from which an answer's next token is guessed."""
        return np.flatnonzero(self.learn) - 1

    def show(self, vision: _Vision, pad: int) -> None:
        """Append the tokens of a picture: they share time, and differ in row and column."""
        places = token_places(vision.grid) + self._next
        count = places.shape[1]
        self.slots.append(np.arange(len(self.ids), len(self.ids) + count))
        self.ids += [pad] * count
        self.learn += [False] * count
        self.places.append(places)
        self.visions.append(vision)
        self._next = int(places.max()) + 1


def pack(rows: Sequence[Row], tasks: Sequence[str]) -> Packed:
    """Lay sequences end to end."""
    starts = np.cumsum([0, *(len(row.ids) for row in rows)])
    shown = [
        (vision, slots + start)
        for row, start in zip(rows, starts[:-1], strict=True)
        for vision, slots in zip(row.visions, row.slots, strict=True)
    ]
    shown.sort(key=lambda entry: entry[0].is_clip)
    stills = [vision.data for vision, _ in shown if not vision.is_clip]
    clips = [vision.data for vision, _ in shown if vision.is_clip]
    steps = [high * wide for vision, _ in shown for time, high, wide in [vision.grid] for _ in range(time)]
    return Packed(
        stills=torch.from_numpy(np.concatenate([np.zeros((0, 3, 196), np.uint8), *stills])),
        clips=torch.from_numpy(np.concatenate([np.zeros((0, 3, 2, 196), np.uint8), *clips])),
        patch_places=_tensor([np.zeros((0, 2), np.int64), *(patch_places(vision.grid) for vision, _ in shown)]),
        patch_bounds=torch.from_numpy(np.cumsum([0, *steps]).astype(np.int32)),
        vision_slots=_tensor([np.zeros(0, np.int64), *(slots for _, slots in shown)]),
        ids=torch.tensor([token for row in rows for token in row.ids]),
        places=torch.from_numpy(np.concatenate([part for row in rows for part in row.places], axis=1)),
        bounds=torch.from_numpy(starts.astype(np.int32)),
        answer_slots=_tensor([row.answer_slots() + start for row, start in zip(rows, starts[:-1], strict=True)]),
        answers=torch.tensor([row.ids[slot + 1] for row in rows for slot in row.answer_slots()]),
        longest_picture=max(steps, default=0),
        longest_text=max(len(row.ids) for row in rows),
        tasks=list(tasks),
    )


def _tensor(parts: Sequence[Ints]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


class Lessons(IterableDataset[Packed]):
    """An endless stream of batches, drawn in worker processes; batch number n depends on the seed and n alone,
    but for the progress of the training at the time."""

    def __init__(self, words: Words, seed: int, size: int, first: int, progress: "Synchronized[float]") -> None:
        self.words, self.seed, self.size, self.first, self.progress = words, seed, size, first, progress

    def __iter__(self) -> Iterator[Packed]:
        worker = get_worker_info()
        number, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        encoder = Encoder()
        at = self.first + number
        while True:
            yield self._batch(encoder, random.Random(f"{self.seed}/{at}"))
            at += stride

    def _batch(self, encoder: Encoder, rng: random.Random) -> Packed:
        samples = [lesson(rng, self.progress.value, self.words) for _ in range(self.size)]
        rows = [encoder.encode(vary(rng, worn(rng, sample))) for sample in samples]
        return pack(rows, [sample.task for sample in samples])


def worn(rng: random.Random, sample: Sample) -> Sample:
    """The sample with pictures as they come from the wild."""
    images = tuple(wear(rng, picture) for picture in sample.images)
    clip = tuple(wear(rng, frame, 0.1) for frame in sample.clip) if sample.clip else None
    return Sample(sample.task, sample.language, sample.prompt, sample.answer, images, clip, sample.things)

"""The nouns that all rooms share.

Nothing here knows HTTP, the OpenAI wire format or vLLM. Data flows one way through these types:

    Conversation (what was asked)  ->  Prompt (token ids and patches)  ->  Event (what came back)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]


# ---- What was asked -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PixelBudget:
    """How large a picture may be once it is resized, as the client asked; None means the model's default.

    The fields and their meaning are those of qwen-vl-utils: `resized_height` and `resized_width` count only
    together and win over the two pixel limits.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True, slots=True)
class PictureSource:
    """A picture that a client names but that nobody has opened yet.

    `url` is a data URL or an http(s) URL. `param` is where it stands in the request, for error messages, such as
    `messages[0].content[1].image_url.url`.
    """

    url: str
    param: str
    budget: PixelBudget = PixelBudget()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: plain strings and pictures in the order in which the model shall see them."""

    role: Role
    content: tuple[str | PictureSource, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. None means the model's own generation_config decides."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole validated request, before any costly work."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()

    @property
    def pictures(self) -> tuple[PictureSource, ...]:
        """Every picture, in reading order."""
        return tuple(part for message in self.messages for part in message.content if isinstance(part, PictureSource))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name of a key, or the anonymous caller of a server without keys.

    `tenant` separates caches between callers: what one has sent can never be learnt by another through timing.
    """

    name: str
    tenant: str


# ---- What the engine is given -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture cut into patches, ready for the vision tower.

    `patches`: uint8 [grid_t * grid_h * grid_w, 3 * 2 * 14 * 14] in merge-block order, not normalised (the engine does
    that on its device). `grid_thw`: the number of patches in time, height and width. `digest` covers the bytes that
    came in and every resize parameter: equal digests mean equal patches.
    """

    patches: NDArray[np.uint8]
    grid_thw: tuple[int, int, int]
    digest: str
    original_size: tuple[int, int]
    """Width and height in pixels of the upright picture before resizing."""

    @property
    def resized_size(self) -> tuple[int, int]:
        """Width and height in pixels that the model sees."""
        return self.grid_thw[2] * 14, self.grid_thw[1] * 14


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture and the run of placeholder tokens that stands for it in the prompt."""

    picture: Picture
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with the placeholders already expanded, and the pictures that they stand for, in order."""

    token_ids: list[int]
    pictures: tuple[Placed, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Everything an engine needs; only validated requests reach this form."""

    request_id: str
    prompt: Prompt
    sampling: Sampling
    tenant: str = ""


# ---- What comes back --------------------------------------------------------------------------------


class FinishReason(StrEnum):
    """Why a choice ended: by itself or a stop string, or at its token limit."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of choice `index`. May be empty while a character is incomplete."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Choice `index` has ended; comes exactly once for each choice."""

    index: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts over all choices; the last event of every complete stream."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


Event = TextDelta | Finished | Usage


# ---- How the house is -------------------------------------------------------------------------------


class EngineState(StrEnum):
    """What an engine is doing; requests are let in only while it is READY."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    STOPPED = "stopped"

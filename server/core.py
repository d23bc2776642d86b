"""The nouns that all rooms share.

Nothing here knows HTTP, the OpenAI wire format or vLLM. Data flows one way through these types:

    Conversation (what was asked)  ->  Prompt (token ids and patches)  ->  Event (what came back)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool"]


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
class FrameChoice:
    """Which frames of a clip the model sees, as the client asked; None means qwen-vl-utils' default.

    The fields and their meaning are those of qwen-vl-utils. `fps` and `nframes` exclude each other; `video_start` and
    `video_end` are seconds. `total_pixels` is shared out between the frames.
    """

    fps: float | None = None
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    video_start: float | None = None
    video_end: float | None = None
    total_pixels: int | None = None
    sample_fps: float | None = None
    """Frames a second of a clip that comes as a list of frames."""


@dataclass(frozen=True, slots=True)
class RawString:
    """A long string of a JSON body, as it was sent: UTF-8 in pieces, JSON's escapes and all.

    Text of tens of megabytes takes an interpreter a tenth of a second to make, in which nobody else is served; what
    most of it is, base64, is read elsewhere and needs no text.
    """

    pieces: tuple[bytes, ...]
    size: int
    """Bytes of all pieces."""
    is_escaped: bool = False
    """Whether there is a backslash in it."""
    beside: int = 0
    """Bytes of it that escapes and broken lines take beside what is meant, if it is base64."""

    def head(self, size: int) -> bytes:
        """The first bytes, at least one of them, of at most `size`."""
        return b"".join(self._up_to(size))[:size]

    def start(self, size: int) -> str:
        """The beginning as text, from at most `size` bytes; the slashes that PHP escapes are read."""
        return self.head(size).replace(b"\\/", b"/").decode("latin-1")

    def after(self, start: int) -> tuple[bytes, ...]:
        """All that stands behind the first `start` bytes, in pieces: to join megabytes holds everybody up."""
        for index, piece in enumerate(self.pieces):
            if start < len(piece):
                return (piece[start:], *self.pieces[index + 1 :])
            start -= len(piece)
        return ()

    def _up_to(self, size: int) -> Iterator[bytes]:
        for piece in self.pieces:
            yield piece
            size -= len(piece)
            if size <= 0:
                return


Url = str | RawString
"""Where something is: a data URL, which may be long, an http(s) URL, or a file: URL."""


@dataclass(frozen=True, slots=True)
class PictureSource:
    """A picture that a client names but that nobody has opened yet.

    `param` is where it stands in the request, for error messages, such as `messages[0].content[1].image_url.url`.
    """

    url: Url
    param: str
    budget: PixelBudget = PixelBudget()


@dataclass(frozen=True, slots=True)
class ClipSource:
    """A clip that a client names: one file, or its frames as pictures in order (`urls` then has one for each).

    `budget` holds for each frame; `is_file` tells a clip file from a list of a single frame.
    """

    urls: tuple[Url, ...]
    param: str
    is_file: bool
    budget: PixelBudget = PixelBudget()
    frames: FrameChoice = FrameChoice()


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """A PDF whose pages become pictures, in order, each within `budget`.

    `pages`: inclusive ranges of page numbers counted from 1, the last of them None for an open end; empty for all.
    `dpi`: dots an inch at which a page is drawn; None for the server's default. `password`: what opens the document;
    in no log, hence in no representation.
    """

    url: Url
    param: str
    pages: tuple[tuple[int, int | None], ...] = ()
    dpi: float | None = None
    budget: PixelBudget = PixelBudget()
    password: str | None = field(default=None, repr=False)


Source = PictureSource | ClipSource | DocumentSource


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that an answer may call.

    `parameters`: a JSON schema as canonical text, which its arguments follow where it `is_strict`; None for one without
    arguments.
    """

    name: str
    description: str = ""
    parameters: str | None = None
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which functions an answer may call, and whether it has to."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required", "named"] = "auto"
    named: str | None = None
    """The function that it has to call, where that is the choice."""
    in_parallel: bool = True
    """Whether it may call several at once."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that an answer calls; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: plain strings, pictures, clips and documents in the order in which the model shall see them.

    `tool_calls`: what an assistant's turn calls besides. `tool_call_id`: which call a tool's turn is the result of.
    """

    role: Role
    content: tuple[str | Source, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


ConstraintKind = Literal["json_schema", "regex", "choice", "grammar"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What form an answer must have.

    `text`, by kind: a JSON schema; a regular expression; a JSON list of texts, one of which is the answer; a grammar in
    Lark's syntax or in GBNF. Text and not objects, so that what is asked can be compared and hashed.
    """

    kind: ConstraintKind
    text: str
    param: str = field(default="response_format", compare=False)
    """Where it stands in the request, for error messages."""


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
    min_tokens: int = 0
    """Before an answer may end by itself."""
    stop_token_ids: tuple[int, ...] = ()
    keep_stop: bool = False
    """Whether the stop string that ended an answer is part of it."""
    bad_words: tuple[str, ...] = ()
    """What the answer must not say."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Token ids, and what is added to their logits."""
    logprobs: int | None = None
    """How many of the likeliest tokens are told at each place beside the one that was taken; None for not even that."""
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """Parameters of a request that have no effect."""

    names: tuple[str, ...] = ()
    """The first of them, with their paths, in characters that are safe in headers and logs; at most 1 KiB."""
    count: int = 0

    def __str__(self) -> str:
        more = self.count - len(self.names)
        return ", ".join((*self.names, f"+{more}") if more else self.names)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A whole validated request, before any costly work."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    priority: int = 0
    """Lower goes first among the requests of the same caller."""
    flex: bool = False
    """Whether it stands back behind all requests that are not."""
    ignored: Ignored = Ignored()
    tool_use: ToolUse | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every picture, clip and document, in reading order."""
        return tuple(part for message in self.messages for part in message.content if not isinstance(part, str))


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

    `patches`: uint8 [grid_t * grid_h * grid_w, 3 * 2 * side * side] in merge-block order, not normalised (the engine
    does that on its device); `side` is the family's patch size, 14 or 16 pixels. For a family whose own processor
    resizes and cuts, a patch is one pixel: uint8 [height * width, 3], row by row. `grid_thw`: the number of patches in
    time, height and width. `digest` covers the bytes that came in and every resize parameter: equal digests mean equal
    patches.
    """

    patches: NDArray[np.uint8]
    grid_thw: tuple[int, int, int]
    digest: str
    original_size: tuple[int, int]
    """Width and height in pixels of the upright picture before resizing."""
    page: int | None = None
    """Which page of a document it is, counted from 1."""
    warnings: tuple[str, ...] = ()
    """What is not as it should be, in sentences for the client."""

    @property
    def resized_size(self) -> tuple[int, int]:
        """Width and height in pixels that the model sees."""
        side = max(1, math.isqrt(self.patches.shape[1] // 6))
        return self.grid_thw[2] * side, self.grid_thw[1] * side


@dataclass(frozen=True, slots=True, eq=False)
class Clip(Picture):
    """A clip cut into patches: as a Picture, but each patch holds two frames that follow each other.

    `grid_thw[0]` is half the number of frames.
    """

    fps: float = 2.0
    """Frames a second among those that the model sees, for families that are told the time."""
    seconds: tuple[float, ...] = ()
    """When each of these frames is shown, for families that are told; empty where nothing but `fps` is known."""

    @property
    def frames(self) -> int:
        """How many frames the model sees."""
        return self.grid_thw[0] * 2


@dataclass(frozen=True, slots=True)
class Opened:
    """What one Source turned out to be: one picture or clip, or the pages of a document in order."""

    source: Source
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A picture or clip and the run of placeholder tokens that stands for it in the prompt.

    `pad`: the placeholder, where the run holds other tokens too, such as the times of frames. `extras`: what the
    model's code takes beside patches and grid, under the names that it has for them.
    """

    picture: Picture
    offset: int
    length: int
    pad: int | None = None
    extras: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids with the placeholders already expanded, and the pictures that they stand for, in order."""

    token_ids: list[int]
    pictures: tuple[Placeholder, ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Everything an engine needs; only validated requests reach this form."""

    request_id: str
    prompt: Prompt
    sampling: Sampling
    tenant: str = ""
    streamed: bool = True
    """Whether someone waits for every token; else the engine may tell of many at once, after the first."""
    trace_headers: Mapping[str, str] | None = None
    """W3C headers of the trace that the engine's work belongs to; None where there is none."""


# ---- What comes back --------------------------------------------------------------------------------


class FinishReason(StrEnum):
    """Why a choice ended: by itself or a stop string, at its token limit, or to have functions called."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer and how likely it was.

    `token` are its bytes in UTF-8, which need not be whole characters. `logprob` is the natural logarithm of its
    probability. `top` has the likeliest tokens at its place in the same terms, the likeliest first.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of choice `index`. May be empty while a character is incomplete, or a stop string may be coming.

    `logprobs`: of the tokens that came with it, where they were asked for; some of them may belong to later text.
    """

    index: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the function call number `call` of choice `index`, both counted from 0.

    The first of a call has its `id` and `name`, and later ones have neither; `arguments` is what comes to its text.
    """

    index: int
    call: int
    arguments: str
    id: str | None = None
    name: str | None = None


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


@dataclass(frozen=True, slots=True)
class Restarted:
    """What came before is void: the answer begins anew. Comes only where nobody waits for every token."""


Event = TextDelta | ToolCallDelta | Finished | Usage | Restarted


@dataclass(frozen=True, slots=True)
class MediaFact:
    """What became of a picture, clip or page: what is left to tell of it once the engine has its patches."""

    param: str
    """Where its source stands in the request."""
    kind: Literal["image", "video", "page"]
    original_size: tuple[int, int]
    """Width and height in pixels, as `resized_size`."""
    resized_size: tuple[int, int]
    tokens: int
    """Placeholder tokens in the prompt, without the markers around them."""
    page: int | None = None
    """Of a page: its number, from 1."""
    frames: int | None = None
    """Of a clip: how many frames the model sees."""
    fps: float | None = None
    """Of a clip: how many of these frames make a second."""
    warnings: tuple[str, ...] = ()
    """What is not as it should be, in sentences."""


@dataclass(slots=True)
class Choice:
    """A finished choice, folded from its events."""

    text: str = ""
    reason: FinishReason = FinishReason.STOP
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply, folded from its events."""

    choices: tuple[Choice, ...]
    usage: Usage
    media: tuple[MediaFact, ...] = ()


# ---- How the house is -------------------------------------------------------------------------------


class EngineState(StrEnum):
    """What an engine is doing; requests are let in only while it is READY."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Reading:
    """A number that a room tells of itself, for /metrics. A counter only ever grows."""

    name: str
    help: str
    value: float
    is_counter: bool = False
    labels: tuple[tuple[str, str], ...] = ()

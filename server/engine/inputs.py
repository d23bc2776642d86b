"""Prompts and sampling in vLLM's terms. Imports vllm at load: only `vllm.py` imports this, once the engine starts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio.to_thread
import torch
from PIL import Image
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.inputs import TokensPrompt, mm_input, tokens_input
from vllm.multimodal.inputs import (
    MultiModalBatchedField,
    MultiModalFieldElem,
    MultiModalFlatField,
    MultiModalKwargsItem,
    MultiModalKwargsItems,
    PlaceholderRange,
)
from vllm.renderers import BaseRenderer
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.structured_output.backend_guidance import validate_guidance_grammar

from server.core import Clip, Constraint, Placeholder, Prompt, Sampling
from server.errors import BadRequest, ContextLengthExceeded, InternalError, first_line, too_long

ON_CPU = MultiModalBatchedField(keep_on_cpu=True)
"""How small values of an item are put together with those of others: the model's code reads them on the host."""

SEEDS = 2**63 - 256
"""Seeds are folded into 0..SEEDS-1: vLLM adds a choice's index to its seed, whose sum must fit an int64 (a larger one
kills the engine), and takes -1 for no seed at all."""

MANY_TOKENS = 2**31
"""More than any answer has."""

GUIDANCE = "guidance"
"""vLLM's name for llguidance, which holds answers to grammars. An engine has one such backend: left to itself, vLLM
chooses one for each request by what it asks for, and then runs all with the one that the first request was given."""

GREEDY_BELOW = 1e-5
"""The temperature under which vLLM takes the likeliest token instead of drawing."""


def ready_input(prompt: Prompt, tenant: str, most: int) -> Any:
    """A rendered engine input, which vLLM takes as it is: no second tokenising, no second look at the pixels.

    Pictures stay where they are in memory, each in an item of its own. They stay uint8: these families normalise on
    the device, and floats would be normalised twice. `most` is how many tokens of one picture or clip the engine has
    room for.

    Raises:
        ContextLengthExceeded: a picture or clip has more.
    """
    salt = {"cache_salt": tenant} if tenant else {}
    if not prompt.pictures:
        return tokens_input(prompt.token_ids, **salt)
    items: dict[str, list[MultiModalKwargsItem]] = defaultdict(list)
    hashes: dict[str, list[str]] = defaultdict(list)
    ranges: dict[str, list[PlaceholderRange]] = defaultdict(list)
    for placed in prompt.pictures:
        modality = "video" if isinstance(placed.picture, Clip) else "image"
        items[modality].append(_item(placed, modality))
        hashes[modality].append(_name(placed, modality))
        ranges[modality].append(_range(placed, prompt.token_ids, most))
    return mm_input(prompt.token_ids, MultiModalKwargsItems(items), dict(hashes), dict(ranges), **salt)


def _name(placed: Placeholder, modality: str) -> str:
    """By which the engine knows its own work on a picture again; the same name with another grid would kill it."""
    return f"{modality}-{placed.picture.digest}-" + "x".join(map(str, placed.picture.grid_thw))


def _item(placed: Placeholder, modality: str) -> MultiModalKwargsItem:
    """What transformers' processors make of one picture or clip, under the names that the model's code has for it."""
    picture = placed.picture
    patches = torch.from_numpy(picture.patches)
    name = "pixel_values_videos" if modality == "video" else "pixel_values"
    elements = {
        name: MultiModalFieldElem(patches, MultiModalFlatField(slices=[slice(0, len(patches))])),
        f"{modality}_grid_thw": MultiModalFieldElem(torch.tensor(picture.grid_thw), ON_CPU),
    }
    for extra, value in placed.extras.items():
        data = list(value) if isinstance(value, tuple) else torch.tensor(value)
        elements[extra] = MultiModalFieldElem(data, ON_CPU)
    return MultiModalKwargsItem(elements)


def _range(placed: Placeholder, token_ids: Sequence[int], most: int) -> PlaceholderRange:
    mask = None
    if placed.pad is not None:
        mask = torch.tensor(token_ids[placed.offset : placed.offset + placed.length]) == placed.pad
    made = PlaceholderRange(placed.offset, placed.length, mask)
    if made.get_num_embeds() > most:
        kind, advice = ("video", "fewer frames or ") if isinstance(placed.picture, Clip) else ("picture", "")
        raise ContextLengthExceeded(
            f"A {kind} takes {made.get_num_embeds()} tokens, more than the {most} that this server can look at in one "
            f"piece. Please give it {advice}a smaller max_pixels. (context_length_exceeded)",
            param="messages",
        )
    return made


async def processed_input(renderer: BaseRenderer, prompt: Prompt, tenant: str) -> Any:
    """An engine input for a family whose own processor resizes and cuts, which vLLM runs in a thread of its own.

    vLLM would look for placeholders in the whole prompt, and find those that people type as well. So it is shown the
    placeholders alone, and what it makes of them is put back to where they stand.

    Raises:
        ContextLengthExceeded: the prompt is too long once its placeholders are expanded.
        BadRequest: the processor does not take these pictures.
    """
    salt = {"cache_salt": tenant} if tenant else {}
    if not prompt.pictures:
        return tokens_input(prompt.token_ids, **salt)
    alone: list[int] = []
    for placed in prompt.pictures:
        alone += prompt.token_ids[placed.offset : placed.offset + placed.length]
    shown = TokensPrompt(
        prompt_token_ids=alone,
        multi_modal_data={"image": await anyio.to_thread.run_sync(_whole, prompt.pictures)},
        multi_modal_uuids={"image": [placed.picture.digest for placed in prompt.pictures]},
    )
    try:
        (made,) = await renderer.render_cmpl_async([shown])
    except ValueError as error:
        raise BadRequest(f"The model does not take these pictures: {first_line(error)}", param="messages") from error
    ids, ranges = _put_back(prompt, made["prompt_token_ids"], made["mm_placeholders"]["image"])
    limit = renderer.model_config.max_model_len
    if len(ids) >= limit:
        advice = "Please shorten them, or send fewer or smaller pictures."
        raise too_long(limit, f"your messages have {len(ids)} tokens", advice)
    return mm_input(ids, made["mm_kwargs"], made["mm_hashes"], {"image": ranges}, **salt)


def _whole(pictures: Sequence[Placeholder]) -> list[Image.Image]:
    shown = (placed.picture for placed in pictures)
    return [Image.fromarray(picture.patches.reshape(*picture.grid_thw[1:], 3)) for picture in shown]


def _put_back(
    prompt: Prompt, expanded: Sequence[int], found: Sequence[PlaceholderRange]
) -> tuple[list[int], list[PlaceholderRange]]:
    """The prompt with expanded placeholders, and where they are; `found` is where they are in `expanded`.

    A placeholder can have tokens around it that its model does not replace, the same for each picture: as many stand
    before the first as before every other.
    """
    if len(found) != len(prompt.pictures):
        raise InternalError("The model's processor did not find its placeholders.")
    before = found[0].offset
    after = len(expanded) - found[-1].offset - found[-1].length
    ids: list[int] = []
    ranges: list[PlaceholderRange] = []
    done = start = 0
    for placed, one in zip(prompt.pictures, found, strict=True):
        if one.offset - before != start:
            raise InternalError("The model's processor expands placeholders in a way that is not known here.")
        end = one.offset + one.length + after
        ids += prompt.token_ids[done : placed.offset]
        ranges.append(PlaceholderRange(len(ids) + before, one.length, one.is_embed))
        ids += expanded[start:end]
        done, start = placed.offset + placed.length, end
    return ids + prompt.token_ids[done:], ranges


def structured_outputs(constraint: Constraint | None) -> StructuredOutputsParams | None:
    """A constraint as vLLM takes it. Blocking for as long as its grammar takes to be read: run it in a thread.

    vLLM would read it on the event loop, which a large schema holds for a second. It is told that it has, see
    `VllmEngine.start`.

    Raises:
        BadRequest: there is no such grammar, or it is too large.
    """
    if constraint is None:
        return None
    made = _STRUCTURED[constraint.kind](constraint.text)
    try:
        validate_guidance_grammar(SamplingParams(structured_outputs=made))
    except BaseException as error:
        # The library is in Rust, and where that panics it raises what is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        message = f"Invalid '{constraint.param}': no answer can be held to it: {first_line(error)}"
        raise BadRequest(message, param=constraint.param) from error
    made._backend = GUIDANCE
    return made


_STRUCTURED: dict[str, Callable[[str], StructuredOutputsParams]] = {
    "json_schema": lambda text: StructuredOutputsParams(json=text),
    "regex": lambda text: StructuredOutputsParams(regex=text),
    "choice": lambda text: StructuredOutputsParams(choice=json.loads(text)),
    "grammar": lambda text: StructuredOutputsParams(grammar=text),
}


def sampling_params(
    sampling: Sampling,
    defaults: Mapping[str, Any],
    *,
    streamed: bool = True,
    structured: StructuredOutputsParams | None = None,
) -> SamplingParams:
    """What the client gave wins over the model's generation_config, which wins over vLLM's neutral values.

    Of an answer that is not streamed vLLM makes two outputs, the first token and all the rest: an output for each token
    would cost this process 5 us more a token, of some 10.

    Raises:
        BadRequest: vLLM takes no such value.
    """
    given = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": sampling.max_tokens,
        "seed": None if sampling.seed is None else sampling.seed % SEEDS,
        "logprobs": sampling.logprobs,
        "logit_bias": dict(sampling.logit_bias) or None,
        "stop_token_ids": list(sampling.stop_token_ids) or None,
        "bad_words": list(sampling.bad_words) or None,
    }
    values = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    if sampling.n > 1 and values.get("temperature", 1.0) < GREEDY_BELOW:
        # vLLM refuses several greedy choices, clients may ask for them: with one candidate, a draw is greedy too.
        values |= {"temperature": 1.0, "top_k": 1}
    try:
        return SamplingParams(
            **values,
            n=sampling.n,
            stop=list(sampling.stop),
            min_tokens=sampling.min_tokens,
            include_stop_str_in_output=sampling.keep_stop,
            structured_outputs=structured,
            output_kind=RequestOutputKind.DELTA,
            stream_interval=None if streamed else MANY_TOKENS,
            skip_clone=True,
        )
    except (ValueError, VLLMClientError) as error:
        raise BadRequest(first_line(error)) from error

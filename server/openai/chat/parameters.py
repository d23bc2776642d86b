"""What becomes of each parameter that has no field of its own on the wire, at every level of a request.

Whatever carries a medium or steers the answer is refused by name, unless its value asks for nothing. What is known to
change nothing is passed over. All else is accepted and told: `Ignored` goes into a header of the reply, a count and the
log. A name that is nearly that of a known one is a slip of the pen, and refused with what was meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

from server.core import Ignored
from server.errors import UnsupportedParameter
from server.openai.chat.body import ChatCompletionRequest, ChatMessage, StreamOptions
from server.openai.media.content import (
    FileContent,
    FilePart,
    ImagePart,
    ImageUrl,
    ImageUrlPart,
    RefusalPart,
    TextPart,
    UnknownPart,
    VideoPart,
    VideoUrl,
    VideoUrlPart,
)
from server.openai.media.controls import CONTROLS
from server.openai.media.kwargs import ImageIoKwargs, MediaIoKwargs, MmProcessorKwargs, Size, VideoIoKwargs
from server.openai.response_format import JsonSchema, ResponseFormat, StructuredOutputs
from server.openai.wire import Wire

MAX_NAMES = 16
"""Of a request, that are told, each once for each kind of object; more are only counted."""
MAX_COMPARED = 64
"""Of a request, that are compared with what is known, each once as well: all of them in 15 ms at most."""
MAX_NAME = 64
"""Characters of a name that are told."""
MAX_TOLD = 1024
"""Characters of all names that are told: proxies allow 4 KiB for all headers of a reply."""
UNSAFE = re.compile(r"[^A-Za-z0-9_.\[\]-]")
NEAR = 0.85
"""From which ratio of difflib's on names are the same but for a slip: max_pixel and max_pixels have 0.94."""
SHORTEST = 4
"""Letters of a name that can be near another: of shorter ones one letter is too much of it."""

Effect = Literal["refused", "told", "none"]


# ---- Rules ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a known parameter at a value that asks for something."""

    effect: Effect
    neutral: tuple[object, ...] = ()
    """Values that ask for nothing, besides null."""
    instead: str = ""
    """What to send in its place: a field of the request, named where there is one, or a hint in words."""


EMPTY: tuple[object, ...] = (False, "", [], {})


def refused(*neutral: object, instead: str = "") -> Rule:
    """Refused, unless false, empty, or one of `neutral`."""
    return Rule("refused", (*EMPTY, *neutral), instead)


def only(*neutral: object, instead: str = "") -> Rule:
    """Refused, unless one of `neutral`: for what even false or empty would change."""
    return Rule("refused", neutral, instead)


def told(*neutral: object) -> Rule:
    """Accepted and told, unless false, empty, or one of `neutral`."""
    return Rule("told", (*EMPTY, *neutral))


NOTHING = Rule("none")
"""For what has no effect on an answer, here or elsewhere."""


def all_of(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


PART_HINT = "Media are parts of a message's content, such as {'type': 'image_url', 'image_url': {'url': '...'}}."
CONTROL_HINT = "Controls stand in the part that they are for, or in 'mm_processor_kwargs' for all of a request."
MEDIA = (
    "image", "images", "image_url", "image_urls", "image_data", "input_image", "image_embeds", "image_pil",
    "video", "videos", "video_url", "video_urls", "video_data", "input_video",
    "audio", "audios", "audio_url", "input_audio",
    "file", "files", "file_url", "file_urls", "file_data", "file_id", "file_ids", "input_file", "document",
    "attachment", "attachments", "experimental_attachments", "mm_data", "mm_payload", "multi_modal_data", "pdf",
    "pixel_values",
)  # fmt: skip
"""Under which clients of any server send pictures, clips, sound and documents."""
BYTES = ("b64_json", "base64", "data", "media", "source")
"""The same, inside of a part."""
MISPLACED: dict[str, Rule] = {
    **all_of(refused(instead=PART_HINT), *MEDIA),
    **all_of(refused(instead=CONTROL_HINT), *CONTROLS - {"detail"}),
    "detail": refused("auto", "high", instead="It counts for pictures: 'low' and 'original' are sizes of these."),
    **{
        name: refused(instead=f"Here it is '{ours}'.")
        for name, ours in {
            "frame_rate": "fps",
            "max_dynamic_patch": "max_pixels",
            "max_image_size": "max_pixels",
            "max_num_frames": "max_frames",
            "max_size": "max_pixels",
            "min_dynamic_patch": "min_pixels",
            "num_segments": "nframes",
            "shortest_edge": "min_pixels",
            "longest_edge": "max_pixels",
            "video_fps": "fps",
        }.items()
    },
}
"""Whatever of these is no field of an object is refused there: a medium would not be seen, a control not be obeyed."""

TOP: dict[str, Rule] = {
    **MISPLACED,
    **all_of(refused(instead="response_format"), "format"),
    **all_of(only(instead="response_format"), "json_schema"),
    **all_of(refused(instead="structured_outputs"), "ebnf", "grammar", "guided_decoding_backend", "regex"),
    **all_of(
        refused(instead="max_tokens"),
        "max_gen_toks", "max_length", "max_new_tokens", "max_output_tokens", "n_predict", "num_predict",
    ),
    **all_of(
        refused(instead="messages"),
        "context", "conversation", "input", "input_embeds", "input_ids", "inputs", "previous_response_id", "prompt",
        "prompt_embeds", "prompt_token_ids",
    ),
    # How else the tokens of an answer are drawn
    **all_of(
        refused(0),
        "diversity_penalty", "dry_multiplier", "dynatemp_range", "epsilon_cutoff", "eta_cutoff", "min_keep",
        "mirostat_mode", "penalty_alpha", "smoothing_factor", "xtc_probability",
    ),
    **all_of(
        refused(),
        "bad_words_ids", "custom_logit_processor", "custom_params", "forced_bos_token_id", "samplers",
        "suppress_tokens", "watermark", "watermarking",
    ),
    "repeat_last_n": refused(0, 64),
    "temp": only(instead="temperature"),
    "top_n_sigma": refused(0, -1),
    "typ_p": refused(1),
    "typical": refused(1),
    # How else it is held to a form, and where it ends
    **all_of(
        refused(instead="response_format"),
        "guided_whitespace_pattern", "json_mode", "response_fields", "response_schema",
    ),
    "output_format": refused("text", instead="response_format"),
    "text": refused({"format": {"type": "text"}}, instead="response_format"),
    **all_of(refused(instead="stop"), "stop_regex", "stop_words"),
    "streaming": refused(instead="stream"),
    "t_max_predict_ms": refused(0, -1, instead="timeout"),
    # What else the model is told, what it is, and what is done besides
    **all_of(
        refused(),
        "adapter", "adapter_id", "adapter_name", "background", "connectors", "enable_search", "lora", "lora_path",
        "lora_request", "plugins", "prompt_mode", "raw", "search_options", "search_parameters", "template",
        "translation_options",
    ),
    **all_of(refused(0), "n_ctx", "n_keep", "num_keep"),
    "generation_config": refused(instead="What stands in it belongs into the request itself, under OpenAI's names."),
    "num_return_sequences": refused(1, instead="n"),
    "truncation": refused("disabled"),
    "vl_high_resolution_images": refused(instead="A picture has 'detail': 'original'."),
    # What else would be told of it
    **all_of(
        refused(),
        "decoder_input_details", "post_sampling_probs", "return_full_text", "return_hidden_states", "return_logprob",
        "return_mm_kwargs", "return_prompt_text", "return_text_in_logprobs", "return_token_offsets",
        "return_tokens_as_token_ids",
    ),
    **all_of(refused(0), "routed_experts_prompt_start", "top_logprobs_num"),
    **all_of(refused(instead="It is a message of the role 'system'."), "instructions", "system", "system_prompt"),
    **all_of(
        refused(instead="What stands in it belongs into the request itself, where OpenAI's SDK puts it."),
        "extra_body", "extra_headers", "extra_query", "parameters", "sampling_params",
    ),
    "add_generation_prompt": only(True),
    "add_special_tokens": refused(),
    "allowed_token_ids": refused(),
    "best_of": refused(1),
    "cache_salt": refused(instead="What one key has sent is never found by another."),
    "chat_template": refused(),
    "continue_final_message": refused(),
    "do_sample": only(instead="temperature"),
    "documents": refused(),
    "echo": refused(),
    "function_call": refused("none", "auto"),
    "functions": refused(),
    "ignore_eos": refused(),
    "length_penalty": refused(1),
    "logprob_token_ids": refused(),
    "min_length": refused(0),
    "min_new_tokens": refused(0),
    "mirostat": refused(0),
    "modalities": refused(["text"]),
    "n_probs": refused(0),
    "no_repeat_ngram_size": refused(0),
    "num_beams": refused(1),
    "num_ctx": refused(instead="The length of the context is the operator's to set (--max-model-len)."),
    "options": refused(instead="What stands in it belongs into the request itself, under OpenAI's names."),
    "prompt_logprobs": refused(),
    "random_seed": only(instead="seed"),
    "repeat_penalty": refused(1, instead="repetition_penalty"),
    "repetition_detection": refused(),
    "return_token_ids": refused(),
    "safe_prompt": refused(),
    "skip_special_tokens": only(True),
    "spaces_between_special_tokens": only(True),
    "stop_sequences": refused(instead="stop"),
    "suffix": refused(),
    "tfs_z": refused(1),
    "thinking_token_budget": refused(),
    "tool_choice": refused("none", "auto"),
    "tools": refused(),
    "top_a": refused(0),
    "truncate_prompt_tokens": refused(),
    "truncation_side": refused(),
    "typical_p": refused(1),
    "use_beam_search": refused(),
    "vllm_xargs": refused(),
    "web_search_options": refused(),
    # What asks for effort, thoughts or a manner that this model has not: an answer comes all the same.
    **all_of(told(), "enable_thinking", "store", "think", "moderation", "models"),
    # Where it runs and how it comes
    **all_of(
        told(),
        "bootstrap_host", "bootstrap_port", "bootstrap_room", "ec_transfer_params", "kv_transfer_params", "provider",
        "reasoning_format", "return_progress", "rid", "route", "safety_settings", "session_id", "timings_per_token",
        "transforms",
    ),
    **all_of(told(-1), "data_parallel_rank", "id_slot"),
    **all_of(told(0, -1), "reasoning_budget", "thinking_budget"),
    "stream_interval": told(1),
    "include_reasoning": told(True),
    "reasoning": told({"effort": "none"}),
    "reasoning_effort": told("none"),
    "thinking": told({"type": "disabled"}),
    "verbosity": told("medium"),
    # For the books of whoever serves, or of no consequence for the answer.
    **all_of(
        NOTHING,
        "cache_prompt", "incremental_output", "keep_alive", "metadata", "parallel_tool_calls", "parse_tool_calls",
        "prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "request_id",
        "result_format", "safety_identifier", "separate_reasoning", "stream_reasoning", "user",
    ),
    # How something is done that is refused where it is asked for.
    **all_of(
        NOTHING,
        "dry_allowed_length", "dry_base", "dry_penalty_last_n", "dry_sequence_breakers", "dynatemp_exponent",
        "mirostat_eta", "mirostat_tau", "xtc_threshold",
    ),
}  # fmt: skip
TEMPLATE_KWARGS = "chat_template_kwargs"
IN_TEMPLATE = {**TOP, "add_vision_id": refused()}
"""Rules for that: what asks for nothing there although templates read it."""
UNLESS = {"tools": ("tool_choice", "none"), "functions": ("function_call", "none")}
"""What asks for nothing where another field says so."""

OF_THE_REQUEST = (
    "chat_template", "chat_template_kwargs", "frequency_penalty", "grammar", "guided_choice", "guided_grammar",
    "guided_json", "guided_regex", "json_schema", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens",
    "media_io_kwargs", "min_p", "mm_processor_kwargs", "presence_penalty", "regex", "repetition_penalty",
    "response_format", "seed", "stop", "stop_sequences", "structured_outputs", "temperature", "tool_choice", "tools",
    "top_k", "top_p",
)  # fmt: skip
"""What steers the answer at the top alone."""
BELOW = MISPLACED | all_of(refused(instead="It counts at the top of a request alone."), *OF_THE_REQUEST)

OF_A_FILE = all_of(NOTHING, "cache_control", "file_name", "filename", "id", "media_type", "mime_type", "name", "uuid")
"""The bytes decide what a file is; prepared pictures are found again by them, too."""


# ---- Levels -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Level:
    """What an object of the request may hold besides the fields of its wire type."""

    rules: Mapping[str, Rule] = field(default_factory=dict)
    unheard: tuple[str, ...] = ()
    """Fields of the wire type that are told when they are given."""
    is_closed: bool = False
    """Whether unknown names are refused too: whatever stands here changes what the model sees."""


BESIDE_A_FILE = BELOW | all_of(refused(instead=PART_HINT), *BYTES) | OF_A_FILE
PART = Level(BESIDE_A_FILE | all_of(refused(), "text"))
PLACE = Level(BESIDE_A_FILE | all_of(NOTHING, "format"))
CLOSED = Level(is_closed=True)
LEVELS: dict[type[Wire], Level] = {
    ChatCompletionRequest: Level(TOP),
    StreamOptions: Level(BELOW | all_of(refused(), "continuous_usage_stats") | all_of(NOTHING, "include_obfuscation")),
    ChatMessage: Level(
        BELOW
        | all_of(refused(), "continue_final_message", "function_call", "partial", "parts", "prefix", "tool_calls")
        | all_of(NOTHING, "annotations", "cache_control", "end_turn", "id", "weight")
        | all_of(told(), "reasoning", "reasoning_content", "thinking", "tool_call_id"),
        unheard=("name",),
    ),
    ResponseFormat: Level(
        BELOW
        | all_of(only(instead="A schema stands in 'json_schema': {'name': '...', 'schema': {...}}."), "schema", "value")
        | all_of(refused(instead="structured_outputs"), "choice", "grammar", "pattern", "regex", "structures")
    ),
    JsonSchema: Level(BELOW),
    StructuredOutputs: Level(
        all_of(
            refused(),
            "disable_additional_properties", "disable_any_whitespace", "disable_fallback", "structural_tag",
            "whitespace_pattern",
        ),
        is_closed=True,
    ),
    TextPart: Level(BELOW | all_of(NOTHING, "annotations", "cache_control", "id", "uuid")),
    RefusalPart: Level(BELOW),
    **dict.fromkeys((ImageUrlPart, ImagePart, VideoUrlPart, VideoPart, FilePart), PART),
    **dict.fromkeys((ImageUrl, VideoUrl, FileContent), PLACE),
    **dict.fromkeys((MmProcessorKwargs, Size, MediaIoKwargs, ImageIoKwargs, VideoIoKwargs), CLOSED),
}  # fmt: skip
"""By wire types."""
NO_RULES = Level()


# ---- Judgement --------------------------------------------------------------------------------------


def judge(body: ChatCompletionRequest, template_words: Collection[str] = ()) -> Ignored:
    """What of a request has no effect; `template_words` are those in the model's chat template.

    Raises:
        UnsupportedParameter: for what would change the answer and is not offered, and for slips; `param` is its path.
    """
    found = _Found()
    _judge(body, "", found)
    _judge_template_kwargs(body, template_words, found)
    return Ignored(tuple(found.names), found.count)


def refuse(ignored: Ignored) -> None:
    """Raises UnsupportedParameter if anything is ignored, for operators who want it so."""
    if ignored.count:
        raise UnsupportedParameter(
            f"This server refuses what it would have to ignore: {ignored}.", param=ignored.names[0]
        )


@dataclass(slots=True)
class _Found:
    """What is ignored, as far as it is known."""

    names: list[str] = field(default_factory=list)
    count: int = 0
    room: int = MAX_TOLD
    compared: set[tuple[type[Wire], str]] = field(default_factory=set)
    """Names that are like none that is known. A conversation repeats them in each message: once is enough."""

    def add(self, path: str, name: str) -> None:
        self.count += 1
        full = _join(path, name)
        if len(self.names) < MAX_NAMES and len(full) <= self.room:
            self.names.append(full)
            self.room -= len(full)


def _judge(wire: Wire, path: str, found: _Found) -> None:
    """Judge an object and all objects in its fields."""
    if isinstance(wire, UnknownPart):
        return  # refused by its type
    level = LEVELS.get(type(wire), NO_RULES)
    for name, value in (wire.model_extra or {}).items():
        if value is not None and (name != TEMPLATE_KWARGS or path):
            _judge_value(wire, level, name, value, path, found)
    for name in level.unheard:
        if getattr(wire, name):
            found.add(path, name)
    for name, value in vars(wire).items():  # of its fields; thousands of messages are to take milliseconds
        if isinstance(value, Wire):
            _judge(value, f"{path}.{name}" if path else name, found)
        elif isinstance(value, list):
            where = f"{path}.{name}" if path else name
            for index, item in enumerate(value):
                if isinstance(item, Wire):
                    _judge(item, f"{where}[{index}]", found)


def _judge_value(wire: Wire, level: Level, name: str, value: object, path: str, found: _Found) -> None:
    rule = level.rules.get(name)
    if rule is not None:
        other, neutral = UNLESS.get(name, ("", None))
        if rule.effect == "none" or _is_one_of(value, rule.neutral) or (other and _extra(wire, other) == neutral):
            return
        if rule.effect == "refused":
            raise _unsupported(_join(path, name), rule.instead)
    elif level.is_closed:
        if value != {}:
            fields = [one.alias or given for given, one in type(wire).model_fields.items()]
            raise _unsupported(_join(path, name), _meant(name, fields) or f"Known here: {', '.join(fields)}.")
        return
    elif (type(wire), name) in found.compared:
        found.count += 1
        return
    elif len(found.compared) < MAX_COMPARED:
        if hint := _meant(name, type(wire).model_fields.keys() | CONTROLS, level.rules):
            raise _unsupported(_join(path, name), hint)
        found.compared.add((type(wire), name))
    found.add(path, name)


def _judge_template_kwargs(body: ChatCompletionRequest, words: Collection[str], found: _Found) -> None:
    """What the template does not read has no effect in vLLM's server either; what it reads is not offered."""
    kwargs = _extra(body, TEMPLATE_KWARGS)
    if kwargs is None or kwargs == {}:
        return
    if not isinstance(kwargs, dict):
        raise _unsupported(TEMPLATE_KWARGS)
    for key, value in kwargs.items():
        rule = IN_TEMPLATE.get(key)
        is_refused = rule is not None and rule.effect == "refused"
        if value is None or (rule is not None and is_refused and _is_one_of(value, rule.neutral)):
            continue
        if is_refused or key in words:
            raise _unsupported(_join(TEMPLATE_KWARGS, key))
        if not _is_one_of(value, EMPTY):
            found.add(TEMPLATE_KWARGS, key)


def _extra(wire: Wire, name: str) -> Any:
    return (wire.model_extra or {}).get(name)


def _is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    if isinstance(value, dict):  # fields that are not given, or off, ask for nothing
        value = {name: one for name, one in value.items() if one is not None and one is not False}
    # True is 1 to Python, and False 0, but not to those who write JSON.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in neutral)


def _join(path: str, name: str) -> str:
    """The path of a name, with what is safe to be told of it: in a header, in a log."""
    shown = UNSAFE.sub("?", name[:MAX_NAME]) or "?"
    return f"{path}.{shown}" if path else shown


def _unsupported(path: str, instead: str = "") -> UnsupportedParameter:
    message = f"'{path}' is not supported by this server."
    if instead.isidentifier():
        instead = f"Use '{instead}'."
    return UnsupportedParameter(f"{message} {instead}".rstrip(), param=path)


def _meant(name: str, fields: Collection[str], rules: Mapping[str, Rule] = MappingProxyType({})) -> str:
    """The question whether one of the known names was meant; empty if none is near.

    Of those without a field only what would be refused is looked at, and only for another spelling of it.
    """
    if len(name) > MAX_NAME:
        return ""
    refused_names = frozenset(one for one, rule in rules.items() if rule.effect == "refused")
    return _near(_plain(name), frozenset(fields), refused_names)


@lru_cache(maxsize=1024)
def _near(key: str, fields: frozenset[str], refused_names: frozenset[str]) -> str:
    plain = _spellings(fields)
    if known := plain.get(key) or _spellings(refused_names).get(key):
        return f"Did you mean '{known}'?"
    near = difflib.get_close_matches(key, plain, 1, NEAR) if len(key) >= SHORTEST else []
    return f"Did you mean '{plain[near[0]]}'?" if near else ""


@lru_cache(maxsize=64)
def _spellings(names: frozenset[str]) -> dict[str, str]:
    return {_plain(one): one for one in sorted(names)}


def _plain(name: str) -> str:
    """A name without what languages differ in: maxPixels, max-pixels and max_pixels are one."""
    return name.replace("_", "").replace("-", "").lower()

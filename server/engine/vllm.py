"""The vLLM engine, embedded: the only importer of vllm in the project, the same file for CPU and GPU.

Importing this module is cheap; vllm itself is imported by `start`, in a worker thread. See `zygote.py` for how its
processes are started.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from server.core import (
    EngineState,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Placed,
    Prompt,
    Sampling,
    TextDelta,
    Usage,
)
from server.engine import zygote
from server.engine.loading import follow
from server.engine.protocol import Report, StartupError
from server.errors import ApiError, BadRequest, EngineDied, EngineNotReady, InternalError, Overloaded

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

LOAD = "Load the model"

STOP_WITHIN_S = 1.5
"""After that long the process ends the engine's processes itself."""

SEEDS = 2**63 - 256
"""Seeds are folded into 0..SEEDS-1: vLLM adds a choice's index to its seed, whose sum must fit an int64 (a larger one
kills the engine), and takes -1 for no seed at all."""

FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
"""vLLM's further reasons (abort, error) are failures and become errors."""
GREEDY_BELOW = 1e-5
"""The temperature under which vLLM takes the likeliest token instead of drawing."""


class VllmEngine:
    """An AsyncLLM in this process; its EngineCore and workers run in processes of their own."""

    def __init__(self, arguments: Mapping[str, Any], merge_size: int = 2, log_file: Path | None = None) -> None:
        """`arguments` are those of vLLM's AsyncEngineArgs; `merge_size` is the vision tower's spatial merge.

        `log_file` is where the engine's processes write: their progress in loading is read from there.
        """
        self._arguments = dict(arguments)
        self._merge_size = merge_size
        self._log_file = log_file
        self._llm: AsyncLLM | None = None
        self._defaults: dict[str, Any] = {}
        self._stopped = False

    @property
    def state(self) -> EngineState:
        if self._stopped:
            return EngineState.STOPPED
        if self._llm is None:
            return EngineState.STARTING
        return EngineState.DEAD if self._llm.errored else EngineState.READY

    @property
    def max_model_len(self) -> int:
        return int(self._ready().model_config.max_model_len)

    def _ready(self) -> AsyncLLM:
        if self._llm is None:
            raise EngineNotReady("The engine is still starting.")
        return self._llm

    async def start(self, report: Report) -> None:
        watch = asyncio.create_task(follow(self._log_file, partial(report, LOAD))) if self._log_file else None
        try:
            llm = await anyio.to_thread.run_sync(self._build, report, abandon_on_cancel=True)
        finally:
            if watch is not None:
                watch.cancel()
        if self._stopped:
            llm.shutdown()
            return
        self._defaults = llm.model_config.get_diff_sampling_param()
        self._llm = llm

    def _build(self, report: Report) -> AsyncLLM:
        """Blocking, in a worker thread: import vllm, start its processes, load the weights."""
        report("Import the engine", "torch, transformers, vLLM")
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        zygote.start_processes_by("forkserver")
        try:
            arguments = AsyncEngineArgs(**self._arguments)
        except TypeError as error:
            raise StartupError(
                f"vLLM does not know an engine argument: {error}.", "Correct --engine-arg, see vLLM's engine arguments."
            ) from error
        report(LOAD, "")
        try:
            # The API server's usage context gives its batch sizes; without it they fall to a quarter.
            config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
            return AsyncLLM.from_vllm_config(
                config,
                usage_context=UsageContext.OPENAI_API_SERVER,
                disable_log_stats=arguments.disable_log_stats,
                enable_log_requests=arguments.enable_log_requests,
            )
        except Exception as error:
            traceback.print_exc()  # to the engine's log, which is where the process's stderr goes
            raise StartupError(f"The engine did not start: {_first_line(error)}", _hint(error)) from error

    async def stop(self) -> None:
        self._stopped = True
        if self._llm is not None:
            with anyio.move_on_after(STOP_WITHIN_S):
                await anyio.to_thread.run_sync(self._llm.shutdown, STOP_WITHIN_S, abandon_on_cancel=True)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        llm = self._ready()
        prompt = _engine_input(request.prompt, request.tenant, self._merge_size)
        stream = llm.generate(prompt, _sampling_params(request.sampling, self._defaults), request.request_id)
        del request  # and with it the pictures: an answer may take minutes, and they are in the engine by then
        usage = _UsageCounter()
        async with contextlib.aclosing(stream):
            try:
                async for output in stream:
                    prompt.pop("mm_kwargs", None)
                    usage.count(output)
                    for event in _events(output):
                        yield event
            except ApiError:
                raise
            except Exception as error:
                raise _as_api_error(error) from error
        yield usage.event()


class _UsageCounter:
    """Adds up token counts over the outputs of one request."""

    def __init__(self) -> None:
        self._prompt = self._completion = 0
        self._cached: int | None = None

    def count(self, output: RequestOutput) -> None:
        self._prompt = len(output.prompt_token_ids or ())
        if self._cached is None:  # later choices find in the cache what the first has put there
            self._cached = output.num_cached_tokens
        self._completion += sum(len(choice.token_ids) for choice in output.outputs)

    def event(self) -> Usage:
        return Usage(self._prompt, self._completion, self._cached or 0)


def _events(output: RequestOutput) -> list[Event]:
    events: list[Event] = []
    for choice in output.outputs:
        if choice.text:
            events.append(TextDelta(choice.index, choice.text))
        if choice.finish_reason is not None:
            reason = FINISH_REASONS.get(str(choice.finish_reason))
            if reason is None:
                raise InternalError(f"The engine ended the request early ({choice.finish_reason}).")
            events.append(Finished(choice.index, reason))
    return events


def _engine_input(prompt: Prompt, tenant: str, merge_size: int) -> Any:
    """A rendered engine input, which vLLM takes as it is: no second tokenising, no second look at the pixels."""
    from vllm.inputs import tokens_input

    salt = {"cache_salt": tenant} if tenant else {}
    if not prompt.pictures:
        return tokens_input(prompt.token_ids, **salt)
    from vllm.inputs import mm_input
    from vllm.multimodal.inputs import PlaceholderRange

    return mm_input(
        prompt.token_ids,
        _picture_items(prompt.pictures, merge_size),
        {"image": [placed.picture.digest for placed in prompt.pictures]},
        {"image": [PlaceholderRange(placed.offset, placed.length) for placed in prompt.pictures]},
        **salt,
    )


def _picture_items(pictures: tuple[Placed, ...], merge_size: int) -> Any:
    """Patches stay uint8: this family normalises on the device, and floats would be normalised twice."""
    import numpy as np
    import torch
    from transformers import BatchFeature
    from vllm.model_executor.models.qwen2_vl import _create_qwen2vl_field_factory
    from vllm.multimodal.inputs import MultiModalKwargsItems

    patches = [placed.picture.patches for placed in pictures]
    together = patches[0] if len(patches) == 1 else np.concatenate(patches)
    features = {
        "pixel_values": torch.from_numpy(together),
        "image_grid_thw": torch.tensor([placed.picture.grid_thw for placed in pictures]),
    }
    fields = _create_qwen2vl_field_factory(merge_size)(features)
    return MultiModalKwargsItems.from_hf_inputs(BatchFeature(features), fields)


def _sampling_params(sampling: Sampling, defaults: Mapping[str, Any]) -> SamplingParams:
    """What the client gave wins over the model's generation_config, which wins over vLLM's neutral values."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind

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
    }
    values = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    if sampling.n > 1 and values.get("temperature", 1.0) < GREEDY_BELOW:
        # vLLM refuses several greedy choices, clients may ask for them: with one candidate, a draw is greedy too.
        values |= {"temperature": 1.0, "top_k": 1}
    try:
        return SamplingParams(
            **values, n=sampling.n, stop=list(sampling.stop), output_kind=RequestOutputKind.DELTA, skip_clone=True
        )
    except (ValueError, VLLMClientError) as error:
        raise BadRequest(_first_line(error)) from error


def _as_api_error(error: Exception) -> Exception:
    """vLLM's exceptions in the house's terms; the only place that knows both."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return EngineDied("The engine died while it worked on this request; please send it again.")
    if isinstance(error, GracefulHTTPError):
        return Overloaded(_first_line(error))
    if isinstance(error, VLLMClientError):
        return BadRequest(_first_line(error))
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _hint(error: Exception) -> str:
    text = str(error).lower()
    if "memory" in text or "kv cache" in text:
        return "Lower --max-model-len or --max-num-seqs, raise --gpu-memory-utilization, or use --quantization fp8."
    return "The log holds the engine's own words; correct the setting that it names and start again."

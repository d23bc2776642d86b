"""The vLLM engine, embedded, the same for CPU and GPU.

Importing this module is cheap; vllm itself is imported by `start`, in a worker thread, and with it `inputs.py`. See
`fork_server.py` for how its processes are started.
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
    Sampling,
    TextDelta,
    TokenLogprob,
    Usage,
)
from server.engine import fork_server
from server.engine.loading import follow
from server.engine.processes import activity_of, free_shared_memory, kill_now, shared_memory_of
from server.engine.protocol import ProcessActivity, Report, StartupError
from server.engine.sampling import own_defaults
from server.engine.token_bytes import TokenBytes
from server.errors import ApiError, BadRequest, EngineDied, EngineNotReady, InternalError, Overloaded, first_line

if TYPE_CHECKING:
    from vllm import CompletionOutput, RequestOutput, SamplingParams
    from vllm.logprobs import Logprob
    from vllm.v1.engine.async_llm import AsyncLLM

LOAD = "Load the model"

GRAMMARS_AT_ONCE = 1
"""Read in this process; the library lets others run meanwhile."""

STOP_WITHIN_S = 1.5
"""After that long the process ends the engine's processes itself."""

LEAST_LOGPROB = -9999.0
"""OpenAI's word for a token that is not possible: JSON has no infinity."""

FINISH_REASONS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
"""vLLM's further reasons (abort, error) are failures and become errors."""


class VllmEngine:
    """An AsyncLLM in this process; its EngineCore and workers run in processes of their own."""

    def __init__(
        self,
        arguments: Mapping[str, Any],
        *,
        own_processor: bool = False,
        keep_defaults: bool = False,
        log_file: Path | None = None,
    ) -> None:
        """`arguments` are those of vLLM's AsyncEngineArgs.

        `own_processor`: pictures come whole, and vLLM has the model's own processor cut them. `log_file` is where the
        engine's processes write: their progress in loading is read from there. `keep_defaults`: see `own_defaults`.
        """
        self._arguments = dict(arguments)
        self._own_processor = own_processor
        self._keep_defaults = keep_defaults
        self._log_file = log_file
        self._llm: AsyncLLM | None = None
        self._defaults: dict[str, Any] = {}
        self._shared_memory: set[str] = set()
        """Through which the engine's processes talk with each other: they cannot remove it once they are killed."""
        self._stopped = False
        self._reading_grammars = anyio.CapacityLimiter(GRAMMARS_AT_ONCE)
        self._token_bytes: TokenBytes | None = None

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

    @property
    def max_item_tokens(self) -> int:
        """The most tokens of one picture or clip; known once READY."""
        return int(self._ready().input_processor.mm_encoder_cache_size)

    @property
    def concurrency(self) -> int:
        return int(self._ready().vllm_config.scheduler_config.max_num_seqs)

    async def beat(self) -> None:
        # Through the EngineCore's queue to each of its workers, and back.
        await self._ready().collective_rpc("check_health")

    async def activity(self) -> ProcessActivity:
        return await anyio.to_thread.run_sync(activity_of, self._pids())

    async def kill(self) -> None:
        if self._llm is None:
            return
        from vllm.v1.engine.exceptions import EngineDeadError

        await anyio.to_thread.run_sync(kill_now, self._pids())
        await anyio.to_thread.run_sync(free_shared_memory, self._shared_memory)
        # vLLM does so itself when it sees that its processes have gone; twice does no harm.
        self._llm.output_processor.propagate_error(EngineDeadError())

    def _pids(self) -> list[int]:
        """Of the EngineCores; their workers are children of theirs."""
        manager = getattr(self._llm and self._llm.engine_core.resources, "engine_manager", None)
        return [process.pid for process in getattr(manager, "processes", ()) if process.pid is not None]

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
        # It would read grammars on the event loop; `inputs.structured_outputs` has done so beside it.
        llm.input_processor.structured_outputs_config = None
        self._token_bytes = TokenBytes(llm.get_tokenizer())
        self._llm = llm
        self._shared_memory = await anyio.to_thread.run_sync(shared_memory_of, self._pids())

    def _build(self, report: Report) -> AsyncLLM:
        """Blocking, in a worker thread: import vllm, start its processes, load the weights."""
        report("Import the engine", "torch, transformers, vLLM")
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.envs import enable_envs_cache
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        from server.engine import inputs  # noqa: F401  so that no request waits for it

        fork_server.start_processes_by("forkserver")
        try:
            structured = self._arguments.get("structured_outputs_config")
            made = {"structured_outputs_config": StructuredOutputsConfig(**structured)} if structured else {}
            arguments = AsyncEngineArgs(**{**self._arguments, **made})
        except TypeError as error:
            raise StartupError(
                f"vLLM does not know an engine argument: {error}.", "Correct --engine-arg, see vLLM's engine arguments."
            ) from error
        report(LOAD, "")
        try:
            # The API server's usage context gives its batch sizes; without it they fall to a quarter.
            config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
            llm = AsyncLLM.from_vllm_config(
                config,
                usage_context=UsageContext.OPENAI_API_SERVER,
                disable_log_stats=arguments.disable_log_stats,
                enable_log_requests=arguments.enable_log_requests,
            )
            enable_envs_cache()  # vLLM looks its variables up for every token; its own processes cache them, too
            return llm
        except Exception as error:
            traceback.print_exc()  # to the engine's log, which is where the process's stderr goes
            raise StartupError(f"The engine did not start: {first_line(error)}", _hint(error)) from error

    async def stop(self) -> None:
        self._stopped = True
        if self._llm is not None:
            with anyio.move_on_after(STOP_WITHIN_S):
                await anyio.to_thread.run_sync(self._llm.shutdown, STOP_WITHIN_S, abandon_on_cancel=True)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        llm = self._ready()
        usage = _UsageCounter()
        sampling = request.sampling
        try:
            prompt, params = await self._inputs(llm, request)
            stream = llm.generate(prompt, params, request.request_id, trace_headers=request.trace_headers)
            del request  # and with it the pictures: an answer may take minutes, and they are in the engine by then
            async with contextlib.aclosing(stream):
                async for output in stream:
                    prompt.pop("mm_kwargs", None)
                    usage.count(output)
                    for event in _events(output, sampling, self._token_bytes):
                        yield event
        except ApiError:
            raise
        except Exception as error:
            raise _as_api_error(error) from error
        yield usage.event()

    async def _inputs(self, llm: AsyncLLM, request: GenerationRequest) -> tuple[Any, SamplingParams]:
        """Prompt and sampling as vLLM takes them."""
        from server.engine.inputs import processed_input, ready_input, sampling_params, structured_outputs

        constraint = request.sampling.constraint
        structured = constraint and await anyio.to_thread.run_sync(
            structured_outputs, constraint, limiter=self._reading_grammars
        )
        if self._own_processor:
            prompt = await processed_input(llm.renderer, request.prompt, request.tenant)
        else:
            prompt = ready_input(request.prompt, request.tenant, self.max_item_tokens)
        defaults = own_defaults(request.sampling, self._defaults, kept=self._keep_defaults)
        params = sampling_params(request.sampling, defaults, streamed=request.streamed, structured=structured)
        return prompt, params


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


def _events(output: RequestOutput, sampling: Sampling, token_bytes: TokenBytes | None) -> list[Event]:
    events: list[Event] = []
    for choice in output.outputs:
        logprobs = _logprobs(choice, sampling, token_bytes) if choice.logprobs and token_bytes else ()
        if choice.text or logprobs:
            events.append(TextDelta(choice.index, choice.text, logprobs))
        if choice.finish_reason is not None:
            reason = FINISH_REASONS.get(str(choice.finish_reason))
            if reason is None:
                raise InternalError(f"The engine ended the request early ({choice.finish_reason}).")
            events.append(Finished(choice.index, reason))
    return events


def _logprobs(choice: CompletionOutput, sampling: Sampling, token_bytes: TokenBytes) -> tuple[TokenLogprob, ...]:
    """Of the new tokens, but for one that ended the answer and has no text in it."""
    taken = list(zip(choice.token_ids, choice.logprobs or (), strict=False))
    if choice.finish_reason == "stop" and not isinstance(choice.stop_reason, str) and not sampling.keep_stop:
        taken = taken[:-1]
    return tuple(_logprob(token_id, among, sampling.logprobs or 0, token_bytes) for token_id, among in taken)


def _logprob(token_id: int, among: Mapping[int, Logprob], wanted: int, token_bytes: TokenBytes) -> TokenLogprob:
    """vLLM tells of the token that was taken and of the likeliest, the likeliest of all having rank 1."""
    ranked = sorted((one.rank, other, one.logprob) for other, one in among.items() if one.rank and one.rank <= wanted)
    top = tuple((token_bytes.of(other), max(logprob, LEAST_LOGPROB)) for _, other, logprob in ranked)
    return TokenLogprob(token_bytes.of(token_id), max(among[token_id].logprob, LEAST_LOGPROB), top)


def _as_api_error(error: Exception) -> Exception:
    """vLLM's exceptions in the house's terms; the only place that knows both."""
    from vllm.exceptions import GracefulHTTPError, VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        return EngineDied("The engine died while it worked on this request; please send it again.")
    if isinstance(error, GracefulHTTPError):
        return Overloaded(first_line(error))
    if isinstance(error, VLLMClientError):
        return BadRequest(first_line(error), param=getattr(error, "parameter", None))
    return error


def _hint(error: Exception) -> str:
    text = str(error).lower()
    if "memory" in text or "kv cache" in text:
        return "Lower --max-model-len or --max-num-seqs, raise --gpu-memory-utilization, or use --quantization fp8."
    return "The log holds the engine's own words; correct the setting that it names and start again."

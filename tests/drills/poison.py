"""A request that kills the engine: a logits processor that runs in the engine's own processes.

    --engine-arg 'logits_processors=["tests.drills.poison:KillsEngine"]'

Nothing but the engine imports this module: it imports vLLM.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

import torch
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor

from tests.drills.house import POISON_SEED

DYING_S: Final = 0.5
"""How long its prefill takes before the engine dies of it: others come in meanwhile."""


class KillsEngine(LogitsProcessor):  # type: ignore[misc]  # vLLM is not followed by mypy
    """Ends its process, from inside and in the prefill, as a request does that finds a fault in a kernel."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        """As vLLM makes it."""

    def is_argmax_invariant(self) -> bool:
        """Whether greedy answers are the same with it."""
        return True

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Look at what has come into the batch, before the model runs."""
        if batch_update is not None and any(params.seed == POISON_SEED for _, params, _, _ in batch_update.added):
            time.sleep(DYING_S)
            os.kill(os.getpid(), signal.SIGKILL)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """All others are answered as ever."""
        return logits

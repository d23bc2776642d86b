"""A training run: the network, its averaged weights, the optimiser, and how far it has come."""

import argparse
import math
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from server.demo.batches import Encoder, Packed
from server.demo.modelfiles import write_model
from server.demo.network import Network, Shape
from server.demo.scoring import show, sit_exam

RATE: Final = 2e-3
"""Highest learning rate."""
WARM_UP: Final = 300
"""Steps until the highest learning rate."""
DECAY_FROM: Final = 0.45
"""Share of the budget after which the rate falls, along a cosine."""
AVERAGE: Final = 0.999
"""How slowly the averaged weights, which are the ones exported, follow."""
CLIP: Final = 1.0
CHECKPOINT: Final = "checkpoint.pt"


@dataclass
class Counters:
    """How far a run has come."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    drawn: int = 0
    """Batches taken from the stream."""


class Trainer:
    """A run: network, averaged weights, optimiser and where it stands."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.options, self.device = options, device
        self.encoder = Encoder()
        torch.manual_seed(options.seed)
        pieces = self.encoder.tokenizer.get_vocab_size()
        self.shape = Shape(vocabulary=math.ceil(pieces / 64) * 64)
        self.network = Network(self.shape).to(device)
        self.average = {name: weight.detach().clone() for name, weight in self.network.named_parameters()}
        self.optimiser = _optimiser(self.network)
        self.counters = Counters()
        self.console = Console()

    @property
    def progress(self) -> float:
        """Share of the budget used, 0 to 1."""
        return min(1.0, self.counters.seconds / (60 * float(self.options.minutes)))

    def rate(self) -> float:
        """Learning rate now."""
        warm = min(1.0, (self.counters.step + 1) / WARM_UP)
        past = max(0.0, self.progress - DECAY_FROM) / (1 - DECAY_FROM)
        return float(self.options.rate) * warm * max(0.005, 0.5 * (1 + math.cos(math.pi * past)))

    def learn(self, batch: Packed) -> Tensor:
        """One step; returns the loss (nats a token) without waiting for the device."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        with self._precision():
            scores = self.network(batch, noise=True)
        loss = F.cross_entropy(scores.float(), batch.answers)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        self._follow()
        return loss.detach()

    def _precision(self) -> AbstractContextManager[Any]:
        on_gpu = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()

    @torch.no_grad()
    def _follow(self) -> None:
        step = self.counters.step
        weight = 1 - min(AVERAGE, (1 + step) / (10 + step))
        current = dict(self.network.named_parameters())
        torch._foreach_lerp_([self.average[name] for name in current], list(current.values()), weight)

    def save(self) -> None:
        """Checkpoint and exported folder; a crash in between leaves the older checkpoint whole."""
        out = cast(Path, self.options.out)
        out.mkdir(parents=True, exist_ok=True)
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "counters": vars(self.counters),
            "random": torch.get_rng_state(),
        }
        torch.save(state, out / f"{CHECKPOINT}.new")
        os.replace(out / f"{CHECKPOINT}.new", out / CHECKPOINT)
        write_model(out / "model", self.shape, self.encoder.tokenizer, self.average)

    def load(self) -> None:
        """Go on where the checkpoint was written."""
        state = torch.load(self.options.out / CHECKPOINT, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.counters = Counters(**state["counters"])
        torch.set_rng_state(state["random"].cpu())

    def examine(self, exam: list[Packed]) -> str:
        """Exact matches of the averaged weights."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        marks = sit_exam(self.network, exam, self.device)
        self.network.load_state_dict(own)
        return show(marks)


def _optimiser(network: Network) -> torch.optim.AdamW:
    matrices = [weight for weight in network.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in network.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    on_gpu = next(network.parameters()).is_cuda
    return torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), fused=on_gpu)

"""Exact matches during the training, without generating.

If the best next token is right at every place of an answer, greedy generation gives exactly that answer, and otherwise
it does not: one pass over the right answers counts the same thing.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from server.demo.batches import Encoder, Packed, pack
from server.demo.conversation import Chat, plain_turn
from server.demo.network import Network
from server.demo.pictures import TASKS, make_sample
from server.demo.words import Words

BATCH = 64


def draw_exam(encoder: Encoder, words: Words, seed: int, count: int) -> list[Packed]:
    """`count` fresh natural samples of each task in plain chats."""
    rng = random.Random(f"exam/{seed}")
    samples = [make_sample(rng, task, words=words) for task in TASKS for _ in range(count)]
    batches = []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        rows = [encoder.encode(Chat((plain_turn(sample),))) for sample in part]
        batches.append(pack(rows, [sample.task for sample in part]))
    return batches


@torch.no_grad()
def sit_exam(network: Network, exam: Sequence[Packed], device: torch.device) -> dict[str, float]:
    """Share of whole answers that are right, by task."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    network.eval()
    for batch in exam:
        for task, correct in zip(batch.tasks, _marks(network, batch.to(device)), strict=True):
            right[task] += correct
            asked[task] += 1
    network.train()
    return {task: right[task] / asked[task] for task in asked}


def _marks(network: Network, batch: Packed) -> list[bool]:
    """For each sequence whether its whole answer is right."""
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=batch.ids.is_cuda):
        hits = network(batch).argmax(dim=-1) == batch.answers
    owners = torch.bucketize(batch.answer_slots, batch.bounds.long(), right=True) - 1
    misses = torch.zeros(len(batch.tasks), device=hits.device).index_add(0, owners, (~hits).float())
    return [miss == 0 for miss in misses.tolist()]


def show(marks: Mapping[str, float]) -> str:
    """One line of percentages."""
    return "  ".join(f"{task} {share:.0%}" for task, share in marks.items())

"""The Quick Start of the model card, run in this process."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Messages = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Said:
    """What the reference answers, token by token."""

    text: str
    prefixes: tuple[str, ...]
    """The text after each token; the end marker adds nothing."""
    margins: tuple[float, ...]
    """For each token by how much its logit led the second best one."""
    prompt_tokens: int

    @property
    def margin(self) -> float:
        """The least lead of any token: near zero, rounding decides what is said."""
        return min(self.margins)

    def margin_where_differs(self, other: str) -> float:
        """The lead of the first token that does not lead to `other`."""
        for prefix, margin in zip(self.prefixes, self.margins, strict=True):
            if not other.startswith(prefix):
                return margin
        return self.margins[-1]  # the other text goes on where this one ends


class Reference:
    """transformers' model and processor, with qwen-vl-utils for the pictures."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

            self._model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
            self.processor = AutoProcessor.from_pretrained(folder)
        torch.set_num_threads(1)  # a small model, and an engine beside it that wants the other cores

    def inputs(self, messages: Messages) -> Any:
        """Token ids and pixels, in the Quick Start's own words."""
        from qwen_vl_utils import process_vision_info

        text = self.processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        images, videos = process_vision_info(list(messages))
        return self.processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt")

    def prompt_ids(self, messages: Messages) -> list[int]:
        """The prompt with placeholders expanded."""
        ids: list[int] = self.inputs(messages)["input_ids"][0].tolist()
        return ids

    @torch.inference_mode()
    def say(self, messages: Messages, max_tokens: int) -> Said:
        """The greedy answer."""
        inputs = self.inputs(messages)
        prompt = inputs["input_ids"].shape[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that temperature and top_k have no effect on a greedy answer
            result = self._model.generate(
                **inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = result.sequences[0, prompt:].tolist()
        best = [torch.topk(step[0].float(), 2).values for step in result.logits]
        margins = tuple(float(first - second) for first, second in best)
        prefixes = tuple(self._decode(ids[: end + 1]) for end in range(len(ids)))
        return Said(self._decode(ids), prefixes, margins, prompt)

    def _decode(self, ids: list[int]) -> str:
        text: str = self.processor.batch_decode([ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)[0]
        return text

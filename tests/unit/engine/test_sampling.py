"""What the model's own sampling values do beside those of a request."""

from __future__ import annotations

from typing import Any

import pytest

from server.core import Sampling
from server.engine.sampling import own_defaults

AIN = {"temperature": 0.01, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("named", "held"),
    [
        ({}, AIN),
        ({"temperature": 0.7}, {"repetition_penalty": 1.05}),
        ({"temperature": 0.0}, {"repetition_penalty": 1.05}),
        ({"top_p": 0.9}, {"repetition_penalty": 1.05}),
        ({"top_k": 50}, AIN),
        ({"presence_penalty": 1.0, "seed": 1, "max_tokens": 5}, AIN),
    ],
    ids=["nothing", "temperature", "greedy", "top_p", "top_k alone", "others"],
)
def test_who_names_temperature_or_top_p_draws_by_it(named: dict[str, Any], held: dict[str, float]) -> None:
    assert own_defaults(Sampling(**named), AIN, kept=False) == held
    assert own_defaults(Sampling(**named), AIN, kept=True) == AIN

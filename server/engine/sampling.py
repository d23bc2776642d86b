"""Which of the model's own sampling values hold beside those that a client names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from server.core import Sampling

NARROWING = ("temperature", "top_p", "top_k", "min_p")
"""Each of them alone may leave but one candidate, whatever the others say."""


def own_defaults(sampling: Sampling, defaults: Mapping[str, Any], *, kept: bool) -> Mapping[str, Any]:
    """The values of the model's generation_config that hold for a request.

    A client that names `temperature` or `top_p` wants an answer drawn by it: the model's other values of that kind,
    such as AIN's `top_k` of 1 and `top_p` of 0.001, would leave nothing to draw. `kept`: they hold all the same, unless
    each is named, as in vLLM's own server.
    """
    if kept or (sampling.temperature is None and sampling.top_p is None):
        return defaults
    return {name: value for name, value in defaults.items() if name not in NARROWING}

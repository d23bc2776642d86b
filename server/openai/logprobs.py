"""Log-probabilities of tokens, as OpenAI has them."""

from __future__ import annotations

from collections.abc import Sequence

from server.core import TokenLogprob


def logprobs_object(tokens: Sequence[TokenLogprob]) -> dict[str, object] | None:
    """`logprobs` of a choice, or of a chunk of one; None where there are none."""
    if not tokens:
        return None
    content = [
        {
            **_entry(token.token, token.logprob),
            "top_logprobs": [_entry(other, logprob) for other, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(token: bytes, logprob: float) -> dict[str, object]:
    return {"token": token_text(token), "logprob": logprob, "bytes": list(token)}


def token_text(token: bytes) -> str:
    r"""The token as text; where it is no whole characters, its bytes as OpenAI writes them: `bytes:\xd9`."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)

"""Log-probabilities on the wire: OpenAI's shape, and never half a letter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.chat_completion import ChoiceLogprobs

from server.core import TokenLogprob
from server.openai.logprobs import logprobs_object, token_text


def test_nothing_asked_for_is_null() -> None:
    assert logprobs_object(()) is None


def test_the_shape_is_openais() -> None:
    made = logprobs_object([TokenLogprob("م".encode(), -0.5, ((b"a", -0.1), (b"\xd9", -2.0)))])
    assert made == {
        "content": [
            {
                "token": "م",
                "logprob": -0.5,
                "bytes": [0xD9, 0x85],
                "top_logprobs": [
                    {"token": "a", "logprob": -0.1, "bytes": [97]},
                    {"token": "bytes:\\xd9", "logprob": -2.0, "bytes": [0xD9]},
                ],
            }
        ],
        "refusal": None,
    }
    ChoiceLogprobs.model_validate(made, strict=True)


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1), st.data())
def test_the_bytes_of_a_text_cut_anywhere_are_the_text_again(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    at = data.draw(st.integers(0, len(whole)))
    made = logprobs_object([TokenLogprob(whole[:at], -1.0), TokenLogprob(whole[at:], -1.0)])
    assert made is not None
    content = made["content"]
    assert isinstance(content, list)
    assert b"".join(bytes(token["bytes"]) for token in content).decode() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in token["token"] for token in content)


def test_a_token_that_is_no_whole_letter_is_told_by_its_bytes() -> None:
    assert token_text(b"\xd9") == "bytes:\\xd9"
    assert token_text("ما".encode()) == "ما"

"""Chats of the training are what clients send."""

import random

from server.demo.conversation import IMAGE, VIDEO, Chat, Turn, chat_messages, plain_turn, scuff, vary
from server.demo.pictures import make_sample


def test_the_question_stands_before_or_after_the_picture() -> None:
    sample = make_sample(random.Random(1), "pair", "en")
    after = plain_turn(sample)
    before = Turn(sample.prompt, sample.answer, sample.images, question_first=True)
    assert after.user_text() == IMAGE * 2 + sample.prompt
    assert before.user_text() == sample.prompt + IMAGE * 2


def test_clips_have_one_marker() -> None:
    sample = make_sample(random.Random(1), "clip", "ar")
    assert plain_turn(sample).user_text() == VIDEO + sample.prompt


def test_only_an_unusual_system_message_is_sent() -> None:
    turn = Turn("Hello", "Hello! Show me a picture.")
    assert [message["role"] for message in chat_messages(Chat((turn,)))] == ["user"]
    assert [message["role"] for message in chat_messages(Chat((turn, turn), "Answer briefly."))] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_every_chat_ends_with_an_answer_to_give() -> None:
    rng = random.Random(4)
    for task in ("shapes", "digits", "pair", "clip", "talk"):
        for _ in range(30):
            chat = vary(rng, make_sample(rng, task))
            assert all(turn.answer for turn in chat.turns)
            assert 1 <= len(chat.turns) <= 2


def test_slips_change_at_most_a_little() -> None:
    prompt = "What is in this picture?"
    typed = {scuff(random.Random(seed), prompt) for seed in range(100)}
    assert prompt in typed
    assert all(len(prompt) - len(slip) <= 1 for slip in typed)
    assert len(typed) > 3

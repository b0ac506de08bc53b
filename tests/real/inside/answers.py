"""What must any real engine that serves the tiny model answer?"""

from __future__ import annotations

import json
import re
from typing import Any

from pytest_kitt.measure.records import CountedBy, Phase
from tools.train_tiny.ask import QUESTIONS
from tools.train_tiny.tokens import encode

PROMPT = "Q: 63+11=?\nAnswer:"
PROMPT_TOKENS = 1 + len(encode(PROMPT))  # one BOS


def test_version(kitt_engine: Any) -> None:
    """The engine says which one it is; a server of others that has no such path is of no version known."""
    mute = kitt_engine.cell.runtime == "endpoint" and not kitt_engine.card.version.path
    assert re.match("$" if mute else r"\d+\.\d+", kitt_engine.version)


def test_exact_answers(kitt_engine: Any) -> None:
    """Both APIs give the right answer, see the same prompt with one BOS, count the end token and say why it ended."""
    chat, completion = kitt_engine.chat("63+11=?", max_tokens=16), kitt_engine.generate(PROMPT, max_tokens=16)
    for answer in (chat, completion):
        assert (answer.output, answer.finish_reason) == (" 74", "stop")
        assert (answer.prompt_tokens, answer.completion_tokens) == (PROMPT_TOKENS, len(encode(" 74")) + 1)


def test_the_limit_ends_an_answer(kitt_engine: Any) -> None:
    """The server says ``length``, and what it counts is what was asked for."""
    answer = kitt_engine.generate(PROMPT, max_tokens=2)
    assert (answer.output, answer.finish_reason, answer.completion_tokens) == (" 7", "length", 2)


def test_a_forced_length(kitt_engine: Any) -> None:
    """With the card's fields an answer is as long as its limit, past its own end."""
    answer = kitt_engine.generate(PROMPT, max_tokens=16, **kitt_engine.card.force_length)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 16)
    assert answer.output.startswith(" 74")


def test_the_pieces_of_a_stream(kitt_engine: Any) -> None:
    """They make up the same answer."""
    assert "".join(kitt_engine.stream("63+11=?", max_tokens=16)) == " 74"


def test_a_load_is_counted_by_usage(kitt_load: Any) -> None:
    """Every answer has its length, by the server's own count, and no more token-bearing events than tokens."""
    result = kitt_load("closed:2", "synthetic:48:24", "requests:8", warmup=0)
    rows = [row for row in result.records.rows() if row.phase == Phase.MEASURED]
    assert len(rows) == result.n == 8
    for row in rows:
        assert (row.failure, row.counted_by, row.osl, row.length_finish) == (0, CountedBy.USAGE, 24, 1)
        assert 1 <= len(row.event_ns) <= row.osl
        assert row.isl >= 48


def test_questions(kitt_engine: Any, kitt_measure: Any) -> None:
    """As many right answers as llama.cpp gives with the same weights: 0.79 of all 600 questions, here of 60."""
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()[:60]]
    right = sum(kitt_engine.chat(row["question"], max_tokens=8).output.strip() == row["answer"] for row in rows)
    kitt_measure("right", right / len(rows), unit="share", better="higher", n=len(rows))
    assert right / len(rows) > 0.65

"""A double of an engine that knows the answers: OpenAI's completions, chat and echo, and a tokenizer of words.

``python tests/doubles knowing FACTS --bent=right``. FACTS are JSON lines: ``question``, a text that stands in the
prompt, ``right`` and ``wrong``, the texts that answer it. It finds the last question in a prompt and goes by its form:
options with letters are answered by letter, worked examples that end with ``####`` are followed. So it depends on what
is asked alone, never on how we make a prompt of a row.

``--bent`` says which answers it believes: the right ones, the wrong ones, or any, by a hash of prompt and ``--seed``. A
fact with ``plain`` is known to all of them, as that Paris is the capital of France. Of a text that is none of the
answers it has no opinion: status 400. ``--echo`` says when it does as ``echo`` says: always, never (it is ignored), or
for plain facts alone, which is all that a probe asks for.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.doubles import tokens
from tests.doubles.server import Account, Exchange, Refused, Server, sse

MODEL = "knowing"
LIKELY, UNLIKELY = -0.01, -50.0  # of each token of an answer that it believes, and of another
BOS = 1
_FIRST_ID = 1000
_CONTEXT_LOGPROB = -2.0
_OPTION = re.compile(r"^([A-Z])[.)] (.*)$", re.MULTILINE)
_RANGE_NATS = 4.0  # how far apart random answers are at most

Fact = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Serves."""
    parser = argparse.ArgumentParser(prog="knowing", allow_abbrev=False)
    parser.add_argument("facts", type=Path)
    parser.add_argument("--bent", choices=["right", "wrong", "random"], default="right")
    parser.add_argument("--echo", choices=["always", "never", "plain"], default="always")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args(argv)
    facts = [json.loads(line) for line in options.facts.read_text(encoding="utf-8").splitlines()]
    account = Account()
    account.begin("knowing", argv, ())
    engine = Engine(Mind(facts, options.bent, options.seed), options.echo)
    return Server(("127.0.0.1", 0), engine.answer, account).run()


def number(seed: str, text: str) -> float:
    """From 0 to 1, by the text alone."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
    )


class Mind:
    """What it believes."""

    def __init__(self, facts: Sequence[Fact], bent: str, seed: str) -> None:
        self._facts, self._bent, self._seed = facts, bent, seed

    def _asked(self, text: str) -> Fact:
        """The fact whose question stands last; of several the longest."""
        found = [
            (at + len(fact["question"]), len(fact["question"]), fact)
            for fact in self._facts
            if (at := text.rfind(fact["question"])) >= 0
        ]
        if not found:
            raise Refused(400, {"error": {"message": f"nobody knows what to say to {text[-80:]!r}"}})
        return max(found, key=lambda one: one[:2])[2]

    def plain(self, text: str) -> bool:
        """Whether it is about something that everybody knows."""
        return bool(self._asked(text).get("plain"))

    def logprobs(self, text: str) -> list[float]:
        """Of the last tokens of a text, as many as the answer has with which it ends."""
        fact = self._asked(text)
        answer, right = self._ending(fact, text)
        size = len(tokens.tokenize(f" {answer}"))
        if self._bent == "random" and not self.plain(text):
            return [LIKELY] * (size - 1) + [-_RANGE_NATS * number(self._seed, text) - 0.001]
        return [LIKELY if right is (self._bent != "wrong" or self.plain(text)) else UNLIKELY] * size

    @staticmethod
    def _ending(fact: Fact, text: str) -> tuple[str, bool]:
        """The answer with which a text ends, and whether it is right."""
        options = _options(text, fact)
        meant = options.get(text[-1], text) if options else text
        found = [
            (len(one), one, key == "right") for key in ("right", "wrong") for one in fact[key] if meant.endswith(one)
        ]
        if not found:
            raise Refused(400, {"error": {"message": f"{text[-80:]!r} is no answer that anybody gave"}})
        _, answer, right = max(found)
        return (text[-1] if options else answer), right

    def says(self, prompt: str) -> str:
        """The answer to a prompt, in the prompt's form."""
        fact = self._asked(prompt)
        options = _options(prompt, fact)
        chosen: str = fact["wrong" if self._bent == "wrong" else "right"][0]
        if self._bent == "random":
            sayable = [one for key in ("right", "wrong") for one in fact[key]]
            chosen = sayable[int(number(self._seed, prompt) * len(sayable))]
        if options:
            letter = next(letter for letter, text in options.items() if text == chosen)
            return f" {letter}" if prompt.endswith(":") else f"One of them fits best.\nAnswer: {letter}"
        if "The answer is " in prompt:
            return f" One thinks about it. The answer is {chosen}."
        return f" One thinks about it.\n#### {chosen}" if "#### " in prompt else f" {chosen}"


def _options(text: str, fact: Fact) -> dict[str, str]:
    """Letter and text of each option that is listed behind the question."""
    return dict(_OPTION.findall(text[text.rfind(fact["question"]) :]))


class Words:
    """A tokenizer: a word, digit or sign is a token, and gets its number when it is first seen."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._words: list[str] = []
        self._lock = threading.Lock()

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        pieces = [piece for piece, _ in tokens.tokenize(text)]
        with self._lock:
            for piece in pieces:
                if piece not in self._ids:
                    self._ids[piece] = _FIRST_ID + len(self._words)
                    self._words.append(piece)
            return [self._ids[piece] for piece in pieces]

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, without the one of the beginning."""
        return "".join(self._words[one - _FIRST_ID] for one in ids if one != BOS)


class Engine:
    """Answers requests."""

    def __init__(self, mind: Mind, echo: str) -> None:
        self._mind, self._echo, self._words = mind, echo, Words()

    def answer(self, exchange: Exchange) -> None:
        """Finds the route."""
        routes = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/tokenize"): self._tokenize,
        }
        if route := routes.get(exchange.route):
            route(exchange)
        elif exchange.route == ("GET", "/v1/models"):
            exchange.json({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 32768}]})
        elif exchange.route == ("GET", "/health"):
            exchange.raw(b"")
        else:
            exchange.json({"detail": "Not Found"}, 404)

    def _tokenize(self, exchange: Exchange) -> None:
        body = exchange.body
        lead = [BOS] if body.get("add_special_tokens", True) else []
        exchange.json({"tokens": [*lead, *self._words.ids(body["prompt"])]})

    def _chat(self, exchange: Exchange) -> None:
        body = exchange.body
        self._write(exchange, body, "chat.completion", self._mind.says(body["messages"][-1]["content"]))

    def _completions(self, exchange: Exchange) -> None:
        body = exchange.body
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else self._words.text(prompt)
        if body.get("logprobs") is None:
            self._write(exchange, body, "text_completion", self._mind.says(text))
            return
        pieces = [piece for piece, _ in tokens.tokenize(text)]
        echoed = body.get("echo") and (self._echo == "always" or (self._echo == "plain" and self._mind.plain(text)))
        exchange.json({"choices": [{"text": text, "logprobs": self._echoed(text, pieces) if echoed else _generated()}]})

    def _echoed(self, text: str, pieces: Sequence[str]) -> dict[str, Any]:
        """Of each token of the prompt, and of the one that is generated."""
        last = self._mind.logprobs(text)
        values = [None, *[_CONTEXT_LOGPROB] * (len(pieces) - len(last)), *last]
        return {
            "tokens": ["<s>", *pieces, " the"],
            "token_logprobs": [*values, -1.0],
            "top_logprobs": [
                None,
                *({piece: value} for piece, value in zip(pieces, values[1:], strict=True)),
                {" the": -1.0},
            ],
        }

    def _write(self, exchange: Exchange, body: dict[str, Any], kind: str, said: str) -> None:
        """Token by token, up to the first stop or the limit."""
        whole = min((said.partition(stop)[0] for stop in body.get("stop") or ()), key=len, default=said)
        pieces = [piece for piece, _ in tokens.tokenize(whole)]
        most = body.get("max_completion_tokens") or body["max_tokens"]
        exchange.stream(_events(body, kind, pieces[:most], "length" if len(pieces) > most else "stop"))


def _generated() -> dict[str, Any]:
    """What is said of the generated token alone, by who does not know ``echo``."""
    return {"tokens": [" the"], "token_logprobs": [-1.0], "top_logprobs": [{" the": -1.0}]}


def _events(body: dict[str, Any], kind: str, pieces: Sequence[str], reason: str) -> Iterator[bytes]:
    about = {"id": "1", "object": kind, "created": 0, "model": MODEL}
    chat = kind.startswith("chat")
    for piece in pieces:
        said = {"delta": {"content": piece}} if chat else {"text": piece}
        yield sse({**about, "choices": [{"index": 0, **said, "finish_reason": None}]})
    end: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
    yield sse({**about, "choices": [{"index": 0, **end, "finish_reason": reason}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        count = {"prompt_tokens": 8, "completion_tokens": len(pieces) + 1, "total_tokens": len(pieces) + 9}
        yield sse({**about, "choices": [], "usage": count})
    yield sse("[DONE]")

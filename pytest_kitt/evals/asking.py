"""What does a server do to a question before its model sees it? Asked by chat, by completions, and of its tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import GenerationResult, RunningEngine
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.settings import Api

ANSWER_TOKENS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Asking:
    """A server, asked untimed; what it does not offer, or refuses, is None.

    Attributes:
        engine: it.
        api: whose chats are meant.
        bos_id: number of the BOS; None when the model has none, or nobody says.

    """

    engine: RunningEngine
    api: Api
    bos_id: int | None = None

    def chat(self, question: str) -> GenerationResult:
        """Its answer to a message, with log-probabilities where it has some; EngineRequestError when it refuses."""
        return self.engine.chat(question, api=self.api, max_tokens=ANSWER_TOKENS, logprobs=self._logprobs)

    def completion(self, prompt: str, *, most: int = ANSWER_TOKENS) -> GenerationResult | None:
        """The same behind a prompt as it is, in the first API of its card that takes one."""
        api = next((name for name in self.engine.card.dialects if not apis.DIALECTS[name].chat), None)
        if api is None:
            return None
        try:
            return self.engine.generate(prompt, api=api, max_tokens=most, logprobs=self._logprobs)
        except EngineRequestError:
            return None

    def counted(self, prompt: str) -> int | None:
        """How many tokens its completions count in a prompt."""
        answer = self.completion(prompt, most=1)
        return None if answer is None else answer.prompt_tokens

    def chat_prompt(self, question: str) -> tuple[str, list[int] | None]:
        """The prompt of a message by its own word: the text, empty where it says none, and the tokens."""
        card = self.engine.card.chat_prompt
        if card is None:
            return "", None
        body = {"model": self.engine.model, "messages": [{"role": "user", "content": question}]}
        try:
            said = self.engine.post(card.path, body)
            text = said.get(card.text) if card.text else ""
            tokens = _ids(said.get(card.tokens)) if card.tokens else self.tokens(text)
            if tokens and card.detokenize:
                told = self.engine.post(card.detokenize, {"model": self.engine.model, "tokens": tokens})
                text = told.get("prompt") or told.get("content")
        except (EngineRequestError, AttributeError):
            return "", None
        return text if isinstance(text, str) else "", tokens

    def tokens(self, text: Any, *, special: bool = True) -> list[int] | None:
        """Its tokens of a text, with special ones such as BOS as it adds them itself, or without where it can."""
        card = self.engine.card.tokenize
        if card is None or not isinstance(text, str):
            return None
        try:
            return self.engine.tokenize(text, special=special if card.special else None)
        except EngineRequestError:
            return None

    def plain_tokens(self, text: str) -> list[int] | None:
        """Its tokens of a text without any BOS in front."""
        tokens = self.tokens(text, special=False)
        return None if tokens is None else self.split(tokens)[1]

    def split(self, tokens: Sequence[int]) -> tuple[int, list[int]]:
        """How many BOS stand in front, and what stands behind them."""
        count = next((n for n, token in enumerate(tokens) if token != self.bos_id), len(tokens))
        return count, [*tokens[count:]]

    def added_bos(self, prompt: str) -> int | None:
        """How many BOS its completions put in front of a prompt."""
        count, tokens, plain = self.counted(prompt), self.tokens(prompt), self.plain_tokens(prompt)
        if count is None or tokens is None or plain is None:
            return None
        if self.bos_id is not None and count == len(tokens):
            return self.split(tokens)[0]
        apart = self.bos_id is not None or len(tokens) > len(plain)  # else what it adds cannot be told from the text
        return max(0, count - len(plain)) if apart else None

    @property
    def _logprobs(self) -> int | None:
        return 1 if "logprobs" in self.engine.capabilities else None


def _ids(listed: Any) -> list[int] | None:
    """Token ids of a list of them, or of objects that have one; None for anything else."""
    if not isinstance(listed, list):
        return None
    ids = [entry.get("id") if isinstance(entry, dict) else entry for entry in listed]
    return [number for number in ids if type(number) is int] if all(type(one) is int for one in ids) else None

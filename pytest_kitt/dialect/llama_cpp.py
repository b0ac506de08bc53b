"""How is llama.cpp's server asked in its own tongue, and what do its answers say?

Protocol: llama-server's ``/completion``: server-sent events, or one document. The last one has ``stop: true``, the
reason, counts and timings; no ``[DONE]`` follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_kitt.dialect.answer import Reader

_NS_PER_MS = 1e6
_OLDER_REASONS = {"stopped_eos": "eos", "stopped_word": "word", "stopped_limit": "limit"}  # before ``stop_type``


def request_body(
    *, chat: bool, model: str, prompt: str, max_tokens: int, stream: bool = True, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of one request: greedy, the prompt as it is, without the model's template."""
    del chat
    body = {"model": model, "prompt": prompt, "n_predict": max_tokens, "temperature": 0.0, "stream": stream}
    return {**body, **extra}


def detail_fields(*, chat: bool, logprobs: int | None, token_ids: bool) -> dict[str, Any]:
    """What asks for ids and log-probabilities; 0 alternatives would be none at all."""
    del chat
    asked: dict[str, Any] = {} if logprobs is None else {"n_probs": max(1, logprobs)}
    return {**asked, "return_tokens": True} if token_ids else asked


class LlamaCppReader(Reader):
    """Reads the events of a stream, or the one document of an answer that was not streamed."""

    learns = False  # each event says how many tokens there are so far

    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        if said.get("stop") is True:
            self._ended(said)
        if self.details is not None:
            self.details.add_ids(said.get("tokens"))
            self.details.add_logprobs(said.get("completion_probabilities"))
        text = said.get("content")
        return (text if isinstance(text, str) else ""), ""

    def _ended(self, said: dict[str, Any]) -> None:
        self.done = True
        reason = said.get("stop_type", next((ours for key, ours in _OLDER_REASONS.items() if said.get(key)), ""))
        self.answer.finish_reason = reason[:40] if isinstance(reason, str) else ""
        self._counts(said.get("tokens_evaluated"), said.get("tokens_predicted"))
        timings = said.get("timings")
        if isinstance(timings, dict):
            self._durations(timings.get("prompt_ms"), timings.get("predicted_ms"), _NS_PER_MS)

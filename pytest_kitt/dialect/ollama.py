"""How is Ollama asked in its own tongue, and what do its answers say?

Protocol: Ollama's ``/api/chat`` and ``/api/generate``: JSON lines, counts and durations (ns) in the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_kitt.dialect.answer import Reader, first_text
from pytest_kitt.dialect.details import calls_text


def request_body(
    *, chat: bool, model: str, prompt: str, max_tokens: int, stream: bool = True, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of one request: greedy; a plain prompt is sent raw, without the model's template."""
    asked: dict[str, Any] = (
        {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt, "raw": True}
    )
    options = {"num_predict": max_tokens, "temperature": 0.0, **extra.get("options", {})}
    others = {key: value for key, value in extra.items() if key != "options"}
    return {"model": model, **asked, "stream": stream, **others, "options": options}


def detail_fields(*, chat: bool, logprobs: int | None, token_ids: bool) -> dict[str, Any]:
    """What asks for log-probabilities; Ollama gives no ids."""
    del chat, token_ids
    return {} if logprobs is None else {"logprobs": True, "top_logprobs": logprobs}


class OllamaReader(Reader):
    """Reads the lines of a stream, or the one document of an answer that was not streamed."""

    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        if said.get("done") is True:
            self.done = True
            reason = said.get("done_reason")
            self.answer.finish_reason = reason[:40] if isinstance(reason, str) else ""
            # a prompt that was cached whole is not counted at all
            self._counts(said.get("prompt_eval_count"), said.get("eval_count"))
            self._durations(said.get("prompt_eval_duration"), said.get("eval_duration"), 1)
        message = said.get("message")
        if not isinstance(message, dict):
            message = said
        calls, thought = message.get("tool_calls"), first_text(message, ("thinking",))
        if self.details is not None:
            self.details.add_thought(thought)
            self.details.add_calls(calls)
            self.details.add_logprobs(said.get("logprobs"))
        return first_text(message, ("content", "response")), thought or calls_text(calls)

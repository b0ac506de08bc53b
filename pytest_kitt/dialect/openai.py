"""How is an OpenAI-compatible server asked, and what do its answers say?

Protocols: OpenAI's completions and chat completions. A token-bearing event is one whose first choice carries non-empty
content, reasoning or tool-call text: a role-only first delta is none. Beside the protocol: llama.cpp's ``timings``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_kitt.dialect.answer import Reader, first_text
from pytest_kitt.dialect.details import Details, calls_text

_REASONING_KEYS = ("reasoning_content", "reasoning")
_IDS_KEYS = ("token_ids", "response_token_ids")  # vLLM's, and SGLang's of an unstreamed chat
_NS_PER_MS = 1e6
_SPELLED_END = "eos_token"  # TGI's word, in streams of completions alone: the chunk's text is the end token's own name


def request_body(
    *, chat: bool, model: str, prompt: str, max_tokens: int, stream: bool = True, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of one request: greedy, with usage in the stream."""
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = {"model": model, **asked, "max_tokens": max_tokens, "temperature": 0.0, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return {**body, **extra}


def detail_fields(*, chat: bool, logprobs: int | None, token_ids: bool) -> dict[str, Any]:
    """What asks for log-probabilities, and for ids as vLLM and SGLang call them.

    At least one alternative: to llama.cpp 0 of them are no log-probabilities.
    """
    asked: dict[str, Any] = {}
    if logprobs is not None:
        most = max(1, logprobs)
        asked = {"logprobs": True, "top_logprobs": most} if chat else {"logprobs": most}
    return {**asked, "return_token_ids": True} if token_ids else asked


class OpenAIReader(Reader):
    """Reads the chunks of a stream, or the one document of an answer that was not streamed."""

    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        usage = said.get("usage")
        if usage and isinstance(usage, dict):
            self._counts(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        timings = said.get("timings")
        if timings and isinstance(timings, dict):
            self._durations(timings.get("prompt_ms"), timings.get("predicted_ms"), _NS_PER_MS)
        choices = said.get("choices")
        if not choices or not isinstance(choices, list) or not isinstance(choices[0], dict):
            return "", ""
        choice = choices[0]
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.answer.finish_reason = reason[:40]
        delta = choice.get("delta") or choice.get("message") or choice
        if not isinstance(delta, dict):
            return "", ""
        if self.details is not None:
            _add_details(self.details, choice, delta)
        text = delta.get("content") or delta.get("text")
        if text and isinstance(text, str):
            return ("" if choice.get("finish_reason") == _SPELLED_END else text), ""
        return "", first_text(delta, _REASONING_KEYS) or calls_text(delta.get("tool_calls"))


def _add_details(details: Details, choice: dict[str, Any], delta: dict[str, Any]) -> None:
    details.add_thought(first_text(delta, _REASONING_KEYS))
    details.add_calls(delta.get("tool_calls"))
    for key in _IDS_KEYS:
        details.add_ids(choice.get(key))
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict):
        details.add_logprobs(logprobs.get("content"))
        details.add_columns(logprobs)

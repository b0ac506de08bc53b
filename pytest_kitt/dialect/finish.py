"""Why did an answer end? One word for each reason, whatever a server calls it."""

from __future__ import annotations

STOP, LENGTH, TOOL_CALLS, FILTERED, BROKEN_OFF, OTHER = (
    *("stop", "length", "tool_calls", "content_filter", "broken_off", "other"),
)
_WORDS = {
    "stop": STOP,
    "eos": STOP,  # llama.cpp
    "word": STOP,
    "eos_token": STOP,  # TGI
    "stop_sequence": STOP,
    "length": LENGTH,
    "limit": LENGTH,  # llama.cpp
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    "content_filter": FILTERED,
    "abort": BROKEN_OFF,  # the server gave the answer up: vLLM, SGLang
    "error": BROKEN_OFF,
}


def finish(word: str) -> str:
    """Our word for a server's: stop, length, tool_calls, content_filter, broken_off, other; empty for none."""
    return _WORDS.get(word, OTHER) if word else ""

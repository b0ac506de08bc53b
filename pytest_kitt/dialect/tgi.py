"""How is TGI asked in its own tongue, and what do its answers say?

Protocol: text-generation-inference's ``/generate_stream`` (server-sent events, one a token) and ``/generate`` (one
document). The last event has ``generated_text``, and with ``details`` the counts; no ``[DONE]`` follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_kitt.dialect.answer import Reader


def request_body(
    *, chat: bool, model: str, prompt: str, max_tokens: int, stream: bool = True, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of one request: greedy, with counts. The model is the server's only one, the path says the rest.

    Extra fields are parameters of the generation, given as such or within ``parameters``.
    """
    del chat, model, stream
    given = {**extra, **extra.get("parameters", {})}
    given.pop("parameters", None)
    # not to sample is greedy: a temperature of 0 is refused
    greedy = {"max_new_tokens": max_tokens, "details": True, "do_sample": False}
    return {"inputs": prompt, "parameters": {**greedy, **given}}


def detail_fields(*, chat: bool, logprobs: int | None, token_ids: bool) -> dict[str, Any]:
    """What asks for log-probabilities; ids and that of the token itself are always there."""
    del chat, token_ids
    return {"top_n_tokens": logprobs} if logprobs else {}


class TgiReader(Reader):
    """Reads the events of a stream, or the one document of an answer that was not streamed.

    A special token, as the end of the sequence, is counted by the server and has no text of the answer.
    """

    learns = False  # each event has an index and a log-probability of its own

    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        token = said.get("token")
        whole = said.get("generated_text")
        details = said.get("details")
        if isinstance(whole, str):
            self.done = True
            if isinstance(details, dict):
                self._ended(details)
        if not isinstance(token, dict):
            return (whole if isinstance(whole, str) else ""), ""
        if self.details is not None:
            self.details.add_ids([token.get("id")])
            self.details.add_logprob(token, said.get("top_tokens"))
        text = token.get("text")
        return (text if isinstance(text, str) and token.get("special") is not True else ""), ""

    def _ended(self, details: dict[str, Any]) -> None:
        reason = details.get("finish_reason")
        self.answer.finish_reason = reason[:40] if isinstance(reason, str) else ""
        self._counts(details.get("input_length"), details.get("generated_tokens"))
        tokens = details.get("tokens")
        if self.details is None or not isinstance(tokens, list):
            return
        tops = details.get("top_tokens")
        for index, token in enumerate(tokens):
            if isinstance(token, dict):
                self.details.add_ids([token.get("id")])
                self.details.add_logprob(token, tops[index] if isinstance(tops, list) and index < len(tops) else None)

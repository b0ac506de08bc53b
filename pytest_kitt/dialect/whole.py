"""Who reads an answer that is kept as it came: one JSON document, of any protocol?"""

from __future__ import annotations

from typing import Any

import orjson

from pytest_kitt.dialect.answer import Answer, Reader, bounded, error_text
from pytest_kitt.measure.records import CountedBy, Failure

_COUNTS = (  # where servers say how many tokens came and went: object, prompt, completion
    ("usage", "prompt_tokens", "completion_tokens"),  # OpenAI
    ("meta_info", "prompt_tokens", "completion_tokens"),  # SGLang
    ("", "tokens_evaluated", "tokens_predicted"),  # llama.cpp
    ("", "prompt_eval_count", "eval_count"),  # Ollama
)


class WholeReader(Reader):
    """Keeps the document as the answer's text. One event, when it was complete; tokens where the server counts them."""

    learns = False

    def finish(self) -> Answer:
        """The answer when the body has ended."""
        answer, document = self.answer, b"".join(self._document)
        answer.event_ns.append(self._last_at)
        try:
            said = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            self.fail(Failure.BAD_STREAM, f"the answer is not JSON ({error}): {bounded(repr(document[:200]))}")
            return answer
        if isinstance(said, dict) and said.get("error"):
            self.fail(Failure.ERROR_EVENT, error_text(said, document))
            return answer
        answer.text = document.decode("utf-8", "replace")
        self._take_counts(said if isinstance(said, dict) else {})
        return answer

    def _take_counts(self, said: dict[str, Any]) -> None:
        for name, prompt, completion in _COUNTS:
            counts = said.get(name) if name else said
            if isinstance(counts, dict):
                self._counts(counts.get(prompt), counts.get(completion))
        if self.answer.osl < 0:
            self.answer.counted_by = CountedBy.NOBODY

    def _said(self, said: dict[str, Any]) -> tuple[str, str]:
        raise NotImplementedError(f"the document is read at its end, not {said}")

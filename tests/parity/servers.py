"""How is one server asked by both, lm-evaluation-harness and us?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.fixtures import Evaluate
from tests.parity import test_parity as parity
from tests.parity import theirs


def require_same(
    engine: RunningEngine, evaluate: Evaluate, folder: Path, name: str, *, shots: int, concurrency: int
) -> None:
    """Ours, then theirs, with the same server behind; AssertionError where they differ."""
    fixed = name.startswith("truthfulqa")
    mine = evaluate(name, shots=None if fixed else shots, concurrency=concurrency)
    found = theirs.evaluate(name, _client(engine), folder, shipped.DATASETS / "samples", shots=shots)
    parity.require_same(mine.card, mine, found)
    logged = {(config, r["doc_id"]): r["resps"] for config, rows in found.samples.items() for r in rows}
    for (_, resps), one in zip(sorted(logged.items()), _in_order(mine.scored), strict=True):
        if mine.card.compares:
            theirs_say = [resp[0][0] for resp in resps]
            assert one.response.logprobs == pytest.approx(theirs_say, abs=1e-9), one.question.id
        else:
            assert one.response.text == resps[0][0], one.question.id


def _in_order(scored: Sequence[Any]) -> list[Any]:
    return sorted(scored, key=lambda one: (one.question.config, int(one.question.id.rpartition("/")[2])))


def _client(engine: RunningEngine) -> Any:
    """Their client for OpenAI's completions; with the simulated engine's tokenizer where it is that engine."""
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from pytest_kitt.engine.simulated import text

    class Client(LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval is not typed
        """Sends tokens, as theirs does with any tokenizer of Hugging Face."""

        def __init__(self) -> None:
            url = f"{engine.url}/v1/completions"
            super().__init__(base_url=url, model=engine.model, tokenizer_backend=None, max_length=20_000)
            if engine.card.name == "simulated":
                self.tokenizer, self.tokenized_requests = self, True

        def tok_encode(self, string: Any, **_: Any) -> Any:
            if engine.card.name != "simulated":
                return string if isinstance(string, list | tuple) else [string]
            return text.encode(string) if isinstance(string, str) else [text.encode(one) for one in string]

        @property
        def eot_token_id(self) -> int:
            return 0

        @property
        def eos_string(self) -> None:
            return None

    return Client()

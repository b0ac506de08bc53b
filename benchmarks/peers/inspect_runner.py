"""How fast is inspect_ai? Its own runner, asking by its OpenAI-compatible provider; the end of each scoring is noted.

Runs in an environment that has inspect_ai and openai. What only somebody who looks on needs is off: the display, the
scores meanwhile, the log meanwhile. It is the faster for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import accuracy, match, scorer
from inspect_ai.solver import generate

from benchmarks.peers import runner


def main() -> None:
    """Evaluates in the current folder, and reads what it logged."""
    work, stamp, folder = runner.work(), runner.Stamp(), Path.cwd()
    rows = [json.loads(line) for line in work.questions.read_text(encoding="utf-8").splitlines()]
    samples = [Sample(input=row["question"], target=row["answer"], id=n) for n, row in enumerate(rows)]
    (log,) = evaluate(
        Task(dataset=MemoryDataset(samples), solver=generate(), scorer=_match(stamp)),
        model="openai-api/truth/truth",
        model_base_url=f"{work.url}/v1",
        model_args={"api_key": "none"},
        max_connections=work.concurrency,
        max_tokens=work.tokens,
        display="none",
        score_display=False,
        log_realtime=False,
        log_dir=str(folder / "left"),
    )
    if log.status != "success":
        raise SystemExit(f"inspect_ai ended with {log.status}: {log.error}")
    score = log.results.scores[0].metrics["accuracy"].value
    runner.tell(runner.Found(stamp.ns, score, log.results.completed_samples), folder)


def _match(stamp: runner.Stamp) -> Any:
    """Its ``match``, each end of which is noted."""

    def noted_match() -> Any:
        theirs = match(location="exact")

        async def score(state: Any, target: Any) -> Any:
            found = await theirs(state, target)
            stamp.now()
            return found

        return score

    return scorer(metrics=[accuracy()])(noted_match)()


if __name__ == "__main__":
    main()

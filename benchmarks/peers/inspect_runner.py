"""How fast is inspect_ai? Its own runner, asking by an OpenAI-compatible provider; the end of each scoring is noted.

Runs in an environment that has inspect_ai and openai.
"""

from __future__ import annotations

import json
import time

from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import Score, Scorer, Target, accuracy, match, scorer
from inspect_ai.solver import TaskState, generate

from benchmarks.peers import asked


def main() -> None:
    """Evaluates, and reads what it found."""
    work, stamp = asked.asked(), asked.Stamp()
    lines = work.questions.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    samples = [Sample(input=row["question"], target=row["answer"], id=n) for n, row in enumerate(rows)]
    task = Task(dataset=MemoryDataset(samples), solver=generate(), scorer=_noted(stamp))
    (log,) = run(
        task,
        model="openai-api/truth/truth",
        model_base_url=f"{work.url}/v1",
        model_args={"api_key": "none"},
        display="plain",
        log_dir=str(work.folder / "left"),
        **_config(work.concurrency, work.tokens),
    )
    if log.status != "success" or log.results is None:
        raise SystemExit(f"inspect_ai ended with {log.status}: {log.error}")
    score = log.results.scores[0].metrics["accuracy"].value
    asked.tell(work.out, last_score_ns=stamp.ns, score=score, n=log.results.completed_samples)


def _config(concurrency: int, tokens: int) -> dict[str, int]:
    return {"max_connections": concurrency, "max_tokens": tokens}


@scorer(metrics=[accuracy()])
def _noted(stamp: asked.Stamp) -> Scorer:
    """Its ``match``, each end of which is noted."""
    theirs = match(location="exact")

    async def score(state: TaskState, target: Target) -> Score | None:
        found = await theirs(state, target)
        stamp.ns = time.perf_counter_ns()
        return found

    return score


if __name__ == "__main__":
    main()

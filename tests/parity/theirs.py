"""What does lm-evaluation-harness make of the same questions? Its own tasks, on local files in the original form.

Only where lm-eval is installed: ``tox -e parity``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_FILES = {  # our card -> (their file, their name, folder of the sample, splits)
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k/main", ("train", "test")),
    "gsm8k_cot": ("gsm8k/gsm8k-cot.yaml", "gsm8k/main", ("train", "test")),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", "truthful_qa/multiple_choice", ("validation",)),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "truthful_qa/multiple_choice", ("validation",)),
    "truthfulqa_gen": ("truthfulqa/truthfulqa_gen.yaml", "truthful_qa/generation", ("validation",)),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", ("train", "validation")),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy", ("train", "test")),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", ("train", "test")),
    "winogrande": ("winogrande/default.yaml", "winogrande/winogrande_xl", ("train", "validation")),
    "piqa": ("piqa/piqa.yaml", "piqa", ("train", "validation")),
}
_MMLU = {"mmlu": "mmlu/default", "mmlu_generative": "mmlu/generative"}
METRICS = {"mc2": "acc"}  # our name of a metric -> theirs, where it differs
FILTERS = {"strict": "strict-match", "flexible": "flexible-extract"}


@dataclasses.dataclass(frozen=True)
class Theirs:
    """What they found.

    Attributes:
        samples: by config: one record per question and filter, as lm-eval logs them.
        results: by metric and filter, as lm-eval spells them, over all configs.

    """

    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    results: Mapping[str, Any]


def evaluate(
    name: str, model: Any, folder: Path, samples: Path, *, shots: int | None, limit: int | None = None
) -> Theirs:
    """One of their tasks, asked of a model of theirs; ``folder`` takes the files that say so."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    configs = _write(name, folder, Path(lm_eval.__file__).parent / "tasks", samples)
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[f"kitt_{name}"],
        num_fewshot=shots,
        limit=limit,
        log_samples=True,
        bootstrap_iters=100,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        verbosity="ERROR",
    )
    tasks = {config: f"kitt_{name}_{config}" if config else f"kitt_{name}" for config in configs}
    return Theirs({config: found["samples"][task] for config, task in tasks.items()}, found["results"][f"kitt_{name}"])


def _write(name: str, folder: Path, theirs: Path, samples: Path) -> list[str]:
    """Their configuration, with our files in place of the hub's; returns the configs."""
    if name not in _MMLU:
        source, data, splits = _FILES[name]
        _write_task(folder, f"kitt_{name}", theirs / source, {s: str(samples / data / f"{s}.jsonl") for s in splits})
        return [""]
    configs = sorted(path.name for path in (samples / "mmlu").iterdir())
    for config in configs:
        files = {split: str(samples / "mmlu" / config / f"{split}.jsonl") for split in ("dev", "test")}
        subject = theirs / _MMLU[name] / f"mmlu_{config}.yaml"
        _write_task(folder, f"kitt_{name}_{config}", subject, files)
    metric = {"mmlu": "acc", "mmlu_generative": "exact_match"}[name]
    filters = {"mmlu": "none", "mmlu_generative": "get_response"}[name]
    group = {
        "group": f"kitt_{name}",
        "task": [f"kitt_{name}_{config}" for config in configs],
        "aggregate_metric_list": [{"metric": metric, "weight_by_size": True, "filter_list": filters}],
    }
    (folder / f"kitt_{name}.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    return configs


def _write_task(folder: Path, task: str, source: Path, files: Mapping[str, str]) -> None:
    content: dict[str, Any] = {
        "include": str(source),
        "task": task,
        "tag": [],
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": dict(files)},
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

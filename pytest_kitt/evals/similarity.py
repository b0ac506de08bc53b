"""How like the right answers, and how unlike the wrong ones, is a response? BLEU and ROUGE, from 0 to 100.

As lm-evaluation-harness has them for TruthfulQA: BLEU of one response by sacrebleu, with its international tokens and
exponential smoothing; ROUGE-1, ROUGE-2 and ROUGE-L (sentences apart) by rouge-score, the F measure without stemming.
Each against every answer alone, of which the likest counts.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pytest_kitt.errors import UserError
from pytest_kitt.evals.card import SIMILARITIES, EvalCard

_PACKAGES = {"bleu": ("sacrebleu", "sacrebleu"), "rouge": ("rouge_score", "rouge-score")}  # module, distribution
_ROUGE = {"rouge1": "rouge1", "rouge2": "rouge2", "rougeL": "rougeLsum"}


def require(card: EvalCard) -> None:
    """UserError, with what to install, when a card's metrics need what is not there."""
    for metric in card.metrics:
        for kind, (module, distribution) in _PACKAGES.items():
            if metric.metric.startswith(kind) and importlib.util.find_spec(module) is None:
                raise UserError(
                    f"{card.name}: its metric {metric.metric} needs {distribution}: pip install 'pytest-kitt[evals]'"
                )


def scores(metrics: Iterable[str], text: str, right: Sequence[str], wrong: Sequence[str]) -> dict[str, float]:
    """By metric: ``_max`` is how like a right answer, ``_diff`` less how like a wrong one, ``_acc`` whether more so."""
    asked = [metric for metric in metrics if metric in SIMILARITIES]
    kinds = {metric.rpartition("_")[0] for metric in asked}
    like, unlike = _likest(kinds, text, right), _likest(kinds, text, wrong)
    found = {}
    for metric in asked:
        kind, _, of = metric.rpartition("_")
        difference = like[kind] - unlike[kind]
        found[metric] = {"max": like[kind], "diff": difference, "acc": float(like[kind] > unlike[kind])}[of]
    return found


def _likest(kinds: Iterable[str], text: str, answers: Sequence[str]) -> Mapping[str, float]:
    return {kind: max(_likeness(kind, text, answer) for answer in answers) for kind in kinds}


def _likeness(kind: str, text: str, answer: str) -> float:
    if kind == "bleu":
        return _bleu(text, answer)
    name = _ROUGE[kind]
    return 100 * float(_rouge(text.replace(" . ", ".\n"), answer.replace(" . ", ".\n"))[name].fmeasure)


def _bleu(text: str, answer: str) -> float:
    import sacrebleu

    found = sacrebleu.corpus_bleu([text], [[answer]], smooth_method="exp", smooth_value=0.0, tokenize="intl")
    return float(found.score)


@functools.lru_cache(maxsize=64)
def _rouge(text: str, answer: str) -> Any:
    return _scorer().score(answer, text)


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(_ROUGE.values()))

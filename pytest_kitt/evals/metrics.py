"""How good is one response? The scores of lm-evaluation-harness for one question, from 0 to 1.

Ties of log-probabilities go to the first choice. ``acc_norm`` divides by characters of the choice, without the
delimiter in front; ``acc_bytes`` by bytes of UTF-8.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence

from pytest_kitt.errors import InvalidMeasurement
from pytest_kitt.evals.card import MetricCard

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_DIGITS = str.maketrans("", "", string.digits)


def best(logprobs: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The number of the choice with the highest log-probability, per unit of length if lengths are given."""
    if any(math.isnan(one) for one in logprobs):
        raise InvalidMeasurement(f"a log-probability is no number: {list(logprobs)[:8]}")
    per_unit = [
        one if lengths is None else one / lengths[n] if lengths[n] else -math.inf for n, one in enumerate(logprobs)
    ]
    return per_unit.index(max(per_unit))


def choice(metric: str, logprobs: Sequence[float], choices: Sequence[str], gold: Sequence[int]) -> float:
    """acc, acc_norm or acc_bytes: 1 when the best choice is a right one."""
    lengths = {
        "acc": None,
        "acc_norm": [len(one) for one in choices],
        "acc_bytes": [len(one.encode("utf-8", "surrogatepass")) for one in choices],
    }[metric]
    return float(best(logprobs, lengths) in gold)


def mc2(logprobs: Sequence[float], labels: Sequence[int]) -> float:
    """The share of the choices' probability that the true ones have.

    Shifted by the largest, so that very unlikely choices do not all become zero; where lm-evaluation-harness has a
    number at all, it is the same to the last digits.
    """
    top = max(logprobs)
    if not math.isfinite(top):
        raise InvalidMeasurement(f"no choice has a finite log-probability: {list(logprobs)[:8]}")
    weights = [math.exp(one - top) for one in logprobs]
    true = [weight for weight, label in zip(weights, labels, strict=True) if label == 1]
    return math.fsum(true) / math.fsum(weights)


def exact_match(card: MetricCard, found: str, references: Sequence[str]) -> float:
    """1 when what was found is one of the references, after what the card ignores is gone on both sides."""
    mine = _compared(card, found)
    return float(any(mine == _compared(card, reference) for reference in references))


def _compared(card: MetricCard, text: str) -> str:
    """What is left of a text.

    lm-evaluation-harness keeps it in numpy's arrays meanwhile: they drop zero bytes at the end, and a text that grows
    when it is lowered ("İ" has two characters then) loses what no longer fits.
    """
    for pattern in card.ignore:
        text = re.sub(pattern, "", text).rstrip("\0")
    text = text.rstrip("\0")
    if card.ignore_case:
        text = text.lower()[: len(text)].rstrip("\0")
    if card.ignore_punctuation:
        text = text.translate(_PUNCTUATION).rstrip("\0")
    return text.translate(_DIGITS).rstrip("\0") if card.ignore_numbers else text

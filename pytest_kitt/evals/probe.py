"""Can an engine say how likely a text is? It is tried out before anything is scored: servers ignore what they lack."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import EngineRequestError, Unscorable
from pytest_kitt.evals.loglikelihood import loglikelihood
from pytest_kitt.evals.ways import WAYS, Scored

TOLERANCE = 0.1  # between two scores of one text, in nats: more than half precision makes of another order of sums
BATCH = 8

_WORLD = ("The capital of France is", " Paris", " banana")
_TOY = ("Q: 36+20=?\nAnswer:", " 56", " banana")


@dataclasses.dataclass(frozen=True, slots=True)
class Probed:
    """By which ways an engine scores, and how well it repeats itself.

    Attributes:
        ways: those that were found good, the best first.
        exact: their numbers are the model's; else the best is an estimate.
        refused: each way that was not, with the reason.
        warm_delta: largest difference of a score when it is asked for again, in nats: what a prefix cache changes.
        batch_delta: largest difference between a score asked for alone and among eight, in nats.
        emptied: the prefix cache was emptied before the first score, so that the second shows what it changes.

    """

    ways: tuple[str, ...]
    exact: bool
    refused: Mapping[str, str]
    warm_delta: float
    batch_delta: float
    emptied: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is stored with a result."""
        return {**dataclasses.asdict(self), "ways": [*self.ways], "refused": dict(self.refused)}


def probe(
    engine: RunningEngine, *, ways: Sequence[str] | None = None, exact: bool = True, bos: bool | None = None
) -> Probed:
    """Tries the ways of the engine's card, or those given; Unscorable, with the reasons, when none is good.

    A way is good when it gives a likely and an unlikely continuation log-probabilities that are finite, below 0 and
    different, the likely one the higher (not asked of an engine that makes up its texts), and the same ones again,
    within 0.1, when they are asked for a second time and when eight requests are under way. An engine that was started
    here empties its prefix cache before, if it can; others may need that of a server that already ran. Estimates are
    tried only with ``exact=False``, and only where no exact way is good.
    """
    named = engine.card.loglikelihood if ways is None else ways
    good: dict[str, tuple[float, float, bool]] = {}
    refused = {}
    for name in sorted(named, key=lambda name: not WAYS[name].exact):
        if not WAYS[name].exact and (exact or good):
            refused[name] = "it is an estimate"
            continue
        try:
            good[name] = _try(engine, name, bos)
        except EngineRequestError as error:
            refused[name] = str(error)
    if not good:
        reasons = "; ".join(f"{name}: {why}" for name, why in refused.items()) or "its card names no way"
        raise Unscorable(f"engine {engine.card.name} cannot say how likely a text is ({reasons})")
    first = next(iter(good))
    return Probed(tuple(good), WAYS[first].exact, refused, *good[first])


def _try(engine: RunningEngine, way: str, bos: bool | None) -> tuple[float, float, bool]:
    """Largest differences when warm and in a batch, and whether it began cold; Unscorable when the way is not good."""
    emptied = WAYS[way].exact and not engine.cell.is_given and engine.reset_cache()
    context, likely, unlikely = _TOY if engine.cell.model.toy else _WORLD
    pairs = [(context, likely), (context, unlikely)]
    cold = loglikelihood(engine, pairs, ways=[way], concurrency=1, bos=bos)
    _require_sane(cold, exact=WAYS[way].exact, ordered=not engine.card.synthetic)
    warm = loglikelihood(engine, pairs, ways=[way], concurrency=1, bos=bos)
    batch = loglikelihood(engine, pairs * (BATCH // 2), ways=[way], concurrency=BATCH, bos=bos)
    warm_delta, batch_delta = _delta(cold, warm), _delta(cold * (BATCH // 2), batch)
    if max(warm_delta, batch_delta) > TOLERANCE:
        raise Unscorable(
            f"a text scores differently: by {warm_delta:.3g} when asked again, by {batch_delta:.3g} among {BATCH}"
        )
    return warm_delta, batch_delta, emptied


def _require_sane(scored: Sequence[Scored], *, exact: bool, ordered: bool) -> None:
    likely, unlikely = (one.logprob for one in scored)
    judged = (likely, unlikely) if exact else (likely,)
    if not all(math.isfinite(logprob) and logprob < 0 for logprob in judged):
        raise Unscorable(f"its log-probabilities {likely:.6g} and {unlikely:.6g} are not finite and below 0")
    if likely == unlikely:
        raise Unscorable(f"a likely and an unlikely text both score {likely:.6g}")
    if ordered and likely < unlikely:
        raise Unscorable(f"a likely text scores {likely:.6g}, an unlikely one {unlikely:.6g}")


def _delta(one: Sequence[Scored], other: Sequence[Scored]) -> float:
    """The largest difference; two that are both too unlikely to say are equal."""
    pairs = zip(one, other, strict=True)
    return max(0.0 if a.logprob == b.logprob else abs(a.logprob - b.logprob) for a, b in pairs)

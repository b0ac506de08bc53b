"""How good are the responses? From a response to its scores, from all of them to means with their errors.

Means and standard errors are those of lm-evaluation-harness: the sample's standard deviation (n-1) over the root of n;
over several configs the mean by size, and the pooled standard error. Where the card says which questions belong
together, the error is the clustered one. The 95 % interval is Wilson's, clustered, or bootstrapped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_kitt.errors import Inconclusive, InvalidMeasurement
from pytest_kitt.evals import filters, metrics, similarity
from pytest_kitt.evals.card import EvalCard, metric_name
from pytest_kitt.evals.prompts import Question
from pytest_kitt.measure.means import (
    alike_interval,
    bootstrap_interval,
    clustered_interval,
    clustered_standard_error,
    expanded,
    pooled_standard_error,
    standard_error,
)
from pytest_kitt.measure.results import Measurement
from pytest_kitt.measure.stats import wilson

_SHARE = (0.0, 1.0)
_MAX_RESPONSE_CHARS = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """What the engine said to one question.

    Attributes:
        text: what it wrote; where choices are compared, empty.
        logprobs: of each choice, natural logarithm.
        cut: it stopped at the limit of tokens.
        tokens: how many it wrote, -1 unknown.
        e2e_ms: from the question to its end, -1 unknown.

    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    cut: bool = False
    tokens: int = -1
    e2e_ms: float = -1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """One question with its response and scores.

    Attributes:
        question: as asked.
        response: to it.
        scores: by metric as recorded, 0 to 1; the likeness of texts to 100.
        extracted: by filter: what was compared.
        lost: filters that found nothing.

    """

    question: Question
    response: Response
    scores: Mapping[str, float]
    extracted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    def to_row(self) -> dict[str, Any]:
        """What is stored of it."""
        question, response = self.question, self.response
        right = next(iter(self.scores.values()))
        said: dict[str, Any] = {"extracted": dict(self.extracted)}
        if response.logprobs:
            choices = [choice[:_MAX_RESPONSE_CHARS] for choice in question.choices]
            said = {"choices": choices, "logprobs": list(response.logprobs)}
        return {
            "id": question.id,
            "task": question.config or "questions",
            **({"cluster": question.cluster} if question.cluster else {}),
            "question": question.prompt[-_MAX_RESPONSE_CHARS:],
            "prompt_sha256": question.prompt_sha256,
            "answer": _gold(question),
            "response": _said(self)[:_MAX_RESPONSE_CHARS],
            "correct": right == 1.0,
            "scores": dict(self.scores),
            **said,
            "finish": "length" if response.cut else "stop",
            "tokens": response.tokens if response.tokens >= 0 else None,
            "e2e_ms": round(response.e2e_ms, 3) if response.e2e_ms >= 0 else None,
        }


def _gold(question: Question) -> str:
    if not question.choices:
        return " | ".join(question.references)
    return " | ".join(question.choices[place] for place in question.gold if 0 <= place < len(question.choices))


def _said(scored: Scored) -> str:
    choices = scored.question.choices
    return choices[metrics.best(scored.response.logprobs)] if choices else scored.response.text


def response_of(row: Mapping[str, Any]) -> Response:
    """The response in a row of ``to_row``; ValueError when it holds none."""
    if len(row["response"]) >= _MAX_RESPONSE_CHARS and "logprobs" not in row:
        raise ValueError("the response was too long to be kept whole")
    text = "" if "logprobs" in row else row["response"]
    logprobs = tuple(map(float, row.get("logprobs", ())))
    tokens, e2e_ms = (-1 if row[name] is None else row[name] for name in ("tokens", "e2e_ms"))
    return Response(text, logprobs, row["finish"] == "length", int(tokens), float(e2e_ms))


def score(card: EvalCard, question: Question, response: Response) -> Scored:
    """One response, by each metric."""
    if card.compares:
        return Scored(question, response, _compare(card, question, response.logprobs))
    every = {name: filters.extract(steps, response.text, question.options) for name, steps in card.filters.items()}
    scores = {}
    for name, one in every.items():
        alike = similarity.scores([m.metric for m in card.metrics], one.text, question.references, question.wrong)
        for metric in card.metrics:
            exact = metric.metric == "exact_match"
            found = metrics.exact_match(metric, one.text, question.references) if exact else alike[metric.metric]
            scores[metric_name(metric, name)] = found
    lost = frozenset(name for name, one in every.items() if not one.found)
    return Scored(question, response, scores, {name: one.text for name, one in every.items()}, lost)


def _compare(card: EvalCard, question: Question, logprobs: Sequence[float]) -> dict[str, float]:
    if len(logprobs) != len(question.choices):
        raise InvalidMeasurement(
            f"question {question.id}: {len(logprobs)} log-probabilities for {len(question.choices)} choices"
        )
    return {
        metric_name(metric, ""): metrics.mc2(logprobs, question.labels[metric.labels])
        if metric.metric == "mc2"
        else metrics.choice(metric.metric, logprobs, question.choices, question.gold)
        for metric in card.metrics
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a metric.

    Attributes:
        name: as recorded.
        value: the mean.
        stderr: its standard error; None for a single question.
        n: questions.
        interval: 95 %.
        method: how the interval was made.
        unit: share, or points of a hundred.

    """

    name: str
    value: float
    stderr: float | None
    n: int
    interval: tuple[float, float]
    method: str
    unit: str = "share"

    def measurement(self) -> Measurement:
        """For the store."""
        return Measurement(self.name, "value", self.value, self.unit, "higher", self.n, *self.interval, self.method)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """All questions of an evaluation, scored.

    Attributes:
        card: what was evaluated.
        scored: each question.
        params: how it was run, as stored.
        seed: of bootstrap intervals.

    """

    card: EvalCard
    scored: Sequence[Scored]
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0

    @property
    def n(self) -> int:
        """Questions."""
        return len(self.scored)

    def __getitem__(self, name: str) -> Mean:
        """The mean of one metric over all questions, such as ``scores["acc"]``."""
        return self._mean(name, self.scored)

    def means(self) -> list[Mean]:
        """Each metric over all questions, then by group and by config, where there are several."""
        found = [self[name] for name in self.card.metric_names]
        groups = {name: set(configs) for name, configs in self.card.groups.items()}
        by_config: dict[str, list[Scored]] = {}
        for one in self.scored:
            by_config.setdefault(one.question.config, []).append(one)
        if len(by_config) > 1:
            groups |= {config: {config} for config in by_config}
        for group, members in groups.items():
            some = [one for config, asked in by_config.items() if config in members for one in asked]
            if some:
                found += [
                    dataclasses.replace(self._mean(n, some), name=f"{n}_{_word(group)}") for n in self.card.metric_names
                ]
        return found

    def measurements(self) -> list[Measurement]:
        """Every number for the store: means with their intervals and standard errors, and what makes one doubt them."""
        means = self.means()
        named = means[: len(self.card.metric_names)]
        errors = [
            Measurement(f"{one.name}_stderr", "value", one.stderr, one.unit, "lower", one.n)
            for one in named
            if one.stderr is not None
        ]
        parts = [one.measurement() for one in means[len(named) :]]
        return [one.measurement() for one in named] + errors + self._doubts() + parts

    def _mean(self, name: str, some: Sequence[Scored]) -> Mean:
        return mean(name, some, self.card.bounds(name), seed=self.seed)

    def require_pass(self) -> None:
        """AssertionError or Inconclusive by the card's rule; without one, being scored is enough."""
        __tracebackhide__ = True
        rule = self.card.passes
        if rule is None:
            return
        found = self[rule.metric or self.card.metric_names[0]]
        low, high = found.interval
        asked = f"a sample of {found.n}" if self.params.get("data") == "sample" else f"n={found.n}"
        evidence = (
            f"{found.name} {found.value:.3f} (95 % {low:.3f} to {high:.3f}, {asked}), asked for {rule.at_least:g}"
        )
        assert high >= rule.at_least, f"too low: {evidence}"
        if low < rule.at_least:
            raise Inconclusive(f"too few questions to tell: {evidence}")

    def _doubts(self) -> list[Measurement]:
        if self.card.compares:
            return []
        shares = {"empty_share": sum(not one.response.text.strip() for one in self.scored)}
        if self.card.mode == "generate":  # a first token is always cut off
            shares["length_share"] = sum(one.response.cut for one in self.scored)
        for name, steps in self.card.filters.items():
            if any(step.pattern and step.filter != "remove" for step in steps):
                key = "_".join(part for part in ("extraction_failed", name) if part)
                shares[f"{key}_share"] = sum(name in one.lost for one in self.scored)
        return [Measurement(name, "value", count / self.n, "share", "lower", self.n) for name, count in shares.items()]


def mean(name: str, scored: Sequence[Scored], bounds: tuple[float, float] = _SHARE, *, seed: int = 0) -> Mean:
    """The mean of one metric that lies between bounds; InvalidMeasurement without a question."""
    if not scored:
        raise InvalidMeasurement("not one question was scored")
    by_config: dict[str, list[float]] = {}
    for one in scored:
        by_config.setdefault(one.question.config, []).append(one.scores[name])
    sizes = [len(values) for values in by_config.values()]
    total = sum(sizes)
    averages = [sum(values) / len(values) for values in by_config.values()]
    value = sum(a * size for a, size in zip(averages, sizes, strict=True)) / total if len(sizes) > 1 else averages[0]
    every = [one.scores[name] for one in scored]
    unit = "share" if bounds == _SHARE else "points"
    clusters = [one.question.cluster for one in scored]
    if any(clusters):
        several = len(set(clusters)) > 1
        error = clustered_standard_error(every, clusters) if several else None
        return Mean(name, value, error, total, clustered_interval(every, clusters, bounds), "clustered", unit)
    interval, method = _interval(every, bounds, seed)
    return Mean(name, value, _stderr(list(by_config.values())), total, interval, method, unit)


def _interval(every: Sequence[float], bounds: tuple[float, float], seed: int) -> tuple[tuple[float, float], str]:
    """The interval of independent scores, and how it is made."""
    if bounds == _SHARE and all(one in bounds for one in every):
        return wilson(round(sum(every)), len(every)), "wilson"
    if min(every) == max(every):
        return alike_interval(every[0], len(every), bounds), "wilson"
    return bootstrap_interval(every, seed=seed, within=expanded(len(every))), "bootstrap"


def _stderr(by_config: Sequence[Sequence[float]]) -> float | None:
    """Of the mean: of one config by its sample's deviation, of several pooled; None where it cannot be known."""
    if any(len(values) < 2 for values in by_config):
        every = [one for values in by_config for one in values]
        return standard_error(every) if len(by_config) > 1 and len(every) > 1 else None
    errors = [standard_error(values) for values in by_config]
    sizes = [len(values) for values in by_config]
    return errors[0] if len(errors) == 1 else pooled_standard_error(errors, sizes)


def _word(name: str) -> str:
    """A config as a part of a metric's name."""
    return "".join(one if one.isalnum() else "_" for one in name.lower())

"""How is a row asked? As lm-evaluation-harness asks it, to the byte.

A prompt is the description, then each worked example (question, target delimiter, answer, few-shot delimiter), then the
question, with no delimiter behind it: what is compared or written begins with that.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.errors import UserError
from pytest_kitt.evals import fewshot, template
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.evals.data import Subset

_MAX_CLUSTER_CHARS = 100
_NOWHERE = -100  # the place of a right answer that is no choice: nothing is right then


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One row as asked.

    Attributes:
        id: config and number, such as ``anatomy/12``; the number alone where there is one config.
        config: subset that it is of, empty for the only one.
        contexts: the prompt; one per choice where they differ.
        continuations: what follows it, one per choice; none where the engine writes.
        choices: texts that acc_norm divides by.
        gold: numbers of the right choices.
        references: right answers where the engine writes.
        wrong: wrong answers there, for the metrics that compare with them.
        labels: by metric's expression: 1 for each true choice.
        options: by filter's expression: the choices' texts.
        cluster: what it belongs to together with others; empty where each question stands for itself.

    """

    id: str
    config: str
    contexts: tuple[str, ...]
    continuations: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    labels: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    cluster: str = ""

    @property
    def prompt(self) -> str:
        """The text in front; the first of several."""
        return self.contexts[0]

    @property
    def prompt_sha256(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(self.prompt.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What log-probabilities are asked for: context and continuation, one pair per choice."""
        contexts = self.contexts * len(self.continuations) if len(self.contexts) == 1 else self.contexts
        return list(zip(contexts, self.continuations, strict=True))

    @property
    def chance(self) -> float:
        """Probability of guessing it."""
        return len(self.gold) / len(self.choices) if self.choices else 0.0


def ask(card: EvalCard, subsets: Sequence[Subset], where: str) -> list[Question]:
    """Every row as a question, config after config; UserError names the key of the card that is at fault."""
    renderer = Renderer(card, where)
    return [one for subset in subsets for one in renderer.questions(subset.config, subset.asked, subset.pool)]


class Renderer:
    """A card's templates, ready; UserError for one that cannot be read."""

    def __init__(self, card: EvalCard, where: str) -> None:
        self.card = card
        self._columns = {name: self._value(source, where, f"columns.{name}") for name, source in card.columns.items()}
        self._description = template.text(card.description, f"{where}: description")
        self._prompt = template.text(card.prompt, f"{where}: prompt")
        self._where = where
        listed = isinstance(card.choices, list)
        self._choices = (lambda _: card.choices) if listed else self._value(str(card.choices), where, "choices")
        self._contexts = self._value(card.contexts, where, "contexts")
        self._continuation = self._value(card.continuation, where, "continuation")
        self._gold = (lambda _: card.gold) if isinstance(card.gold, int) else self._value(card.gold, where, "gold")
        self._answer = self._value(card.answer, where, "answer")
        self._wrong = self._value(card.wrong, where, "wrong") if card.wrong else lambda _: []
        self._cluster = self._value(card.cluster, where, "cluster")
        self._labels = {m.labels: self._value(m.labels, where, "labels") for m in card.metrics if m.labels}
        steps = [step for steps in card.filters.values() for step in steps if step.choices]
        self._options = {step.choices: self._value(step.choices, where, "filters.choices") for step in steps}

    @staticmethod
    def _value(source: str, where: str, key: str) -> Callable[[Mapping[str, Any]], Any]:
        return template.value(source, f"{where}: {key}") if source else lambda _: None

    def questions(
        self, config: str, asked: Sequence[Mapping[str, Any]], pool: Sequence[Mapping[str, Any]]
    ) -> Iterator[Question]:
        """Each row of one subset with its worked examples, which come from the pool."""
        shots = fewshot.draw(self.card.fewshot, pool, asked)
        for number, (row, examples) in enumerate(zip(asked, shots, strict=True)):
            columns = self._seen(row, config)
            lead = self._description(columns) + "".join(self._shot(self._seen(one, config)) for one in examples)
            name = f"{config}/{number}" if len(self.card.dataset.configs) > 1 else str(number)
            question = self._question(name, config, columns, lead)
            yield dataclasses.replace(question, cluster=self._group(name, columns)) if self.card.cluster else question

    def _seen(self, row: Mapping[str, Any], config: str) -> dict[str, Any]:
        """What templates see of a row."""
        columns = {"config": config, **row}
        for name, compute in self._columns.items():
            columns[name] = compute(columns)
        return columns

    def _question(self, name: str, config: str, columns: Mapping[str, Any], lead: str) -> Question:
        card = self.card
        labels = {source: self._list(compute(columns), "labels", int) for source, compute in self._labels.items()}
        options = {source: self._list(compute(columns), "choices", str) for source, compute in self._options.items()}
        if not card.compares:
            answer = self._answer(columns)
            references = tuple(map(str, answer)) if isinstance(answer, list | tuple) else (str(answer),)
            prompts = (lead + self._prompt(columns),)
            wrong = tuple(self._list(self._wrong(columns), "wrong", str))
            if card.wrong and not wrong:
                raise UserError(f"{self._where}: wrong: question {name} has no wrong answer")
            return Question(name, config, prompts, references=references, wrong=wrong, labels=labels, options=options)
        choices = self._texts(columns)
        delimiter = card.target_delimiter
        if card.contexts:
            contexts = tuple(lead + one for one in choices)
            continuations = (f"{delimiter}{self._continuation(columns)}",) * len(choices)
        else:
            contexts = (lead + self._prompt(columns),)
            continuations = tuple(f"{delimiter}{one}" for one in choices)
        gold = tuple(_place(one, choices) for one in _each(self._gold(columns)))
        return Question(name, config, contexts, continuations, choices, gold, labels=labels, options=options)

    def _group(self, name: str, columns: Mapping[str, Any]) -> str:
        """What a question belongs to; a long text, as that of a passage, by its hash."""
        found = self._cluster(columns)
        if not isinstance(found, str | int | list | tuple) or found in ("", [], ()):
            raise UserError(
                f"{self._where}: cluster: question {name} belongs to {str(found)[:100]!r}; expected a text or a whole "
                "number, or a list of them"
            )
        text = str(found)
        if len(text) <= _MAX_CLUSTER_CHARS:
            return text
        return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"

    def _shot(self, columns: Mapping[str, Any]) -> str:
        asked, answer = self._example(columns)
        if not answer:
            return asked
        return f"{asked}{self.card.target_delimiter}{answer}{self.card.fewshot.delimiter}"

    def _example(self, columns: Mapping[str, Any]) -> tuple[str, str]:
        """A worked example's question and answer."""
        card = self.card
        if not card.compares:
            return self._prompt(columns), str(next(iter(_each(self._answer(columns)))))
        choices = self._texts(columns)
        place = _place(next(iter(_each(self._gold(columns)))), choices)
        if place == _NOWHERE:
            raise UserError(f"{self._where}: gold: a worked example has no right choice among {list(choices)[:8]}")
        if card.contexts:
            return choices[place], str(self._continuation(columns))
        return self._prompt(columns), choices[place]

    def _texts(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        found = (self._contexts if self.card.contexts else self._choices)(columns)
        texts = tuple(self._list(found, "contexts" if self.card.contexts else "choices", str))
        if not texts:
            raise UserError(f"{self._where}: choices: a question has none")
        return texts

    def _list(self, found: Any, key: str, kind: type[Any]) -> list[Any]:
        if not isinstance(found, list | tuple) or not all(isinstance(one, kind) for one in found):
            raise UserError(f"{self._where}: {key}: expected a list of {kind.__name__}, found {str(found)[:100]!r}")
        return list(found)


def _each(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) and found else (found,)


def _place(gold: Any, choices: Sequence[str]) -> int:
    """The number of a right choice, given as such or as its text."""
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else _NOWHERE
    return int(gold) if isinstance(gold, int) and 0 <= gold < len(choices) else _NOWHERE

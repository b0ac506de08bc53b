"""How is a row asked? As lm-evaluation-harness asks it, to the byte.

A prompt is the description, then each worked example (question, target delimiter, answer, few-shot delimiter), then the
question, with no delimiter behind it: what is compared or written begins with that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pytest_kitt.errors import UserError
from pytest_kitt.evals import fewshot, template
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.evals.data import Subset

_MAX_CLUSTER_CHARS = 100


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
    """Every row as a question, config after config; UserError names the row, and the key of the card."""
    renderer = Renderer(card, where)
    return [one for subset in subsets for one in renderer.questions(subset)]


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

    def questions(self, subset: Subset) -> Iterator[Question]:
        """Each row of a subset with its worked examples, which come from its pool."""
        shots = fewshot.draw(self.card.fewshot, subset.pool, subset.asked)
        for number, (row, examples) in enumerate(zip(subset.asked, shots, strict=True)):
            name = f"{subset.config}/{number}" if len(self.card.dataset.configs) > 1 else str(number)
            lead = "".join(self._example_of(subset, one) for one in examples)
            with _naming(subset.asked_from, number):
                columns = self._seen(row, subset.config)
                question = self._question(name, subset.config, columns, self._description(columns) + lead)
                cluster = self._group(name, columns) if self.card.cluster else ""
                yield dataclasses.replace(question, cluster=cluster)

    def _example_of(self, subset: Subset, row: Mapping[str, Any]) -> str:
        with _naming(subset.pool_from, next(n for n, one in enumerate(subset.pool) if one is row)):
            return self._shot(self._seen(row, subset.config))

    def _seen(self, row: Mapping[str, Any], config: str) -> dict[str, Any]:
        """What templates see of a row."""
        columns = {"config": config, **row}
        for name, compute in self._columns.items():
            columns[name] = compute(columns)
        return columns

    def _question(self, name: str, config: str, columns: Mapping[str, Any], lead: str) -> Question:
        card = self.card
        options = {
            source: self._list(compute(columns), "choices", columns) for source, compute in self._options.items()
        }
        if not card.compares:
            answer = self._answer(columns)
            references = self._list(_each(answer), "answer", columns)
            wrong = self._list(self._wrong(columns), "wrong", columns)
            if card.wrong and not wrong:
                raise UserError(f"{self._where}: wrong: there is no wrong answer")
            prompts = (lead + self._prompt(columns),)
            return Question(name, config, prompts, references=references, wrong=wrong, options=options)
        choices = self._texts(columns)
        delimiter = card.target_delimiter
        if card.contexts:
            contexts = tuple(lead + one for one in choices)
            continuations = (f"{delimiter}{self._end(columns)}",) * len(choices)
        else:
            contexts = (lead + self._prompt(columns),)
            continuations = tuple(f"{delimiter}{one}" for one in choices)
        gold = tuple(self._place(one, choices, columns) for one in _each(self._gold(columns)))
        labels = {source: self._truths(compute(columns), choices, columns) for source, compute in self._labels.items()}
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
            return self._prompt(columns), self._list(_each(self._answer(columns)), "answer", columns)[0]
        choices = self._texts(columns)
        place = self._place(_each(self._gold(columns))[0], choices, columns)
        if card.contexts:
            return choices[place], self._end(columns)
        return self._prompt(columns), choices[place]

    def _end(self, columns: Mapping[str, Any]) -> str:
        return self._list([self._continuation(columns)], "continuation", columns)[0]

    def _texts(self, columns: Mapping[str, Any]) -> tuple[str, ...]:
        key = "contexts" if self.card.contexts else "choices"
        texts = self._list((self._contexts if self.card.contexts else self._choices)(columns), key, columns)
        if not texts:
            raise UserError(f"{self._where}: {key}: there is none")
        return texts

    def _list(self, found: Any, key: str, columns: Mapping[str, Any]) -> tuple[str, ...]:
        """Texts, or numbers as texts; UserError for anything else."""
        if not isinstance(found, list | tuple):
            raise self._unfit(found, key, "a list of texts", columns)
        for one in found:
            if not isinstance(one, str | int | float):
                raise self._unfit(one, key, "a text", columns)
            if isinstance(one, str) and len(one) > template.MAX_RENDERED_CHARS:
                limit = template.MAX_RENDERED_CHARS
                raise UserError(f"{self._where}: {key}: a text of {len(one)} characters; the limit is {limit}")
        return tuple(map(str, found))

    def _place(self, gold: Any, choices: Sequence[str], columns: Mapping[str, Any]) -> int:
        """The number of a right choice, given as such or as its text."""
        if isinstance(gold, str) and gold in choices:
            return choices.index(gold)
        if isinstance(gold, int) and 0 <= gold < len(choices):
            return int(gold)
        digits = isinstance(gold, str) and gold.strip().isdecimal()
        wanted = f"one of the {len(choices)} choices or its number, from 0"
        raise self._unfit(gold, "gold", wanted + (" (of a text: gold: COLUMN | int)" if digits else ""), columns)

    def _truths(self, found: Any, choices: Sequence[str], columns: Mapping[str, Any]) -> list[int]:
        """1 for each true choice and 0 for each other, of which there are some and others."""
        fits = isinstance(found, list | tuple) and len(found) == len(choices) and 1 in found
        if not fits or not all(isinstance(one, int) and one in (0, 1) for one in found):
            raise self._unfit(
                found, "labels", f"1 or 0 for each of {len(choices)} choices, and at least one 1", columns
            )
        return list(found)

    def _unfit(self, found: Any, key: str, wanted: str, columns: Mapping[str, Any]) -> UserError:
        where = f"{self._where}: {key}: {template.column_of(columns, found)}"
        return UserError(f"{where}expected {wanted}, found {ascii(found)[:100]}")


def _each(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list | tuple) and found else (found,)


@contextlib.contextmanager
def _naming(place: str, number: int) -> Iterator[None]:
    """Says of which row an error is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}, row {number + 1}: {error}") from error

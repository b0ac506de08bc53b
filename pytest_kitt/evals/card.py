"""What is an evaluation, to us? One strict YAML card each: where the questions are, how they are asked and scored.

Shipped cards are ``datasets/NAME.yaml``; anyone's own is a ``NAME.kitt.yaml`` beside their tests.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pytest_kitt import shipped
from pytest_kitt.errors import UserError, nearest, why
from pytest_kitt.mistakes import explained, require_single_keys

SUFFIX = ".kitt.yaml"
Mode = Literal["loglikelihood", "generate", "first-token"]
_NAME = r"^[a-z][a-z0-9_]*$"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetCard(_Strict):
    """Where the questions are: on the Hugging Face hub, or in a file or folder.

    Attributes:
        id: hub id, such as ``openai/gsm8k``.
        revision: commit of the hub's repository: 40 hexadecimal digits, so that the questions never change.
        path: in place of an id: ``.jsonl``, ``.csv`` or ``.parquet``, or a folder of SPLIT.jsonl and the like, in a
            folder per config where there are several; relative to the card.
        configs: subsets to ask, one after the other; empty for the only one.
        split: which part is asked.
        sha256: of the file in ``path``, when it must not change.
        licence: under which others may use the questions.
        sample: folder of a few original questions of the same form, for use without a network; relative to the card.

    """

    id: str = ""
    revision: str = Field(default="", pattern=r"^([0-9a-f]{40})?$")
    path: str = ""
    configs: list[str] = []
    split: str = "test"
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    licence: str = ""
    sample: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> DatasetCard:
        if bool(self.id) == bool(self.path):
            raise ValueError("a dataset has either an id on the hub or a path")
        if self.id and not self.revision:
            raise ValueError("a dataset of the hub needs a revision, so that its questions never change")
        return self


class FewShotCard(_Strict):
    """Worked examples in front of each question.

    Attributes:
        count: how many.
        split: of the dataset that they are from.
        samples: in place of a split: the rows themselves.
        rule: the first ones, or a new random choice for each question.
        seed: of that choice.
        leaves_out_question: one more is drawn, and the question itself left out should it be among them.
        delimiter: between one and the next.

    """

    count: int = Field(default=0, ge=0, le=1000)
    split: str = ""
    samples: list[dict[str, Any]] = []
    rule: Literal["first_n", "random"] = "random"
    seed: int = 1234
    leaves_out_question: bool = False
    delimiter: str = "\n\n"

    @model_validator(mode="after")
    def _source(self) -> FewShotCard:
        if self.count and bool(self.split) == bool(self.samples):
            raise ValueError("worked examples come either from a split or from samples")
        return self


Similarity = Literal[
    "bleu_max",
    "bleu_diff",
    "bleu_acc",
    "rouge1_max",
    "rouge1_diff",
    "rouge1_acc",
    "rouge2_max",
    "rouge2_diff",
    "rouge2_acc",
    "rougeL_max",
    "rougeL_diff",
    "rougeL_acc",
]


class FilterStep(_Strict):
    """One step from a response to what is compared.

    Attributes:
        filter: regex takes a match; multi_choice_regex falls back to a choice's text, then to a letter behind a colon;
            strip, lowercase and uppercase do what they say; remove deletes each match.
        pattern: regular expression of regex, multi_choice_regex and remove.
        select: which of several matches: 0 the first, -1 the last.
        fallback: what stands for no match; never right.
        ignore_case: multi_choice_regex: of choices' texts.
        ignore_punctuation: likewise.
        choices: multi_choice_regex: expression for the choices' texts.

    """

    filter: Literal["regex", "multi_choice_regex", "strip", "lowercase", "uppercase", "remove"]
    pattern: Pattern = ""
    select: int = 0
    fallback: str = "[invalid]"
    ignore_case: bool = False
    ignore_punctuation: bool = False
    choices: str = ""

    @model_validator(mode="after")
    def _complete(self) -> FilterStep:
        if self.filter in ("regex", "multi_choice_regex", "remove") and not self.pattern:
            raise ValueError(f"filter {self.filter} needs a pattern")
        if self.filter == "multi_choice_regex" and not self.choices:
            raise ValueError("filter multi_choice_regex needs choices")
        return self


class MetricCard(_Strict):
    """One score of a response.

    Attributes:
        metric: acc (highest log-probability), acc_norm (per character), acc_bytes (per byte), mc2 (share of the
            probability that true choices have), exact_match; of bleu, rouge1, rouge2 and rougeL each ``_max`` (how
            like a right answer, 0 to 100), ``_diff`` (less how like a wrong one) and ``_acc`` (whether more).
        name: as recorded; by default the metric's own. Behind it comes the name of the filter, if that has one.
        labels: mc2: expression for a list of 1 (true) and 0, one per choice.
        ignore: exact_match: regular expressions whose matches are deleted on both sides, one after the other.
        ignore_case: exact_match: likewise.
        ignore_punctuation: exact_match: likewise, ASCII punctuation.
        ignore_numbers: exact_match: likewise, ASCII digits.

    """

    metric: Literal["acc", "acc_norm", "acc_bytes", "mc2", "exact_match", Similarity]
    name: str = Field(default="", pattern=r"^([a-z][A-Za-z0-9_]*)?$")
    labels: str = ""
    ignore: list[Pattern] = []
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False

    @model_validator(mode="after")
    def _complete(self) -> MetricCard:
        if (self.metric == "mc2") != bool(self.labels):
            raise ValueError("labels belong to mc2, and mc2 needs them")
        return self


class PassRule(_Strict):
    """When the test passes: by the first metric unless another is named.

    Attributes:
        metric: name as recorded.
        at_least: fails when the whole 95 % interval lies below, inconclusive when it straddles. A share of 1; of
            BLEU's and ROUGE's likeness and its differences points of 100.

    """

    metric: str = ""
    at_least: float


class EvalCard(_Strict):
    """One evaluation.

    ``prompt`` and ``description`` are Jinja2 templates, ``choices``, ``contexts``, ``continuation``, ``gold``,
    ``answer`` and ``cluster`` are Jinja2 expressions; both see the row's columns, those of ``columns``, and ``config``.

    Attributes:
        name: of the benchmark.
        version: raised whenever scores are no longer comparable with earlier ones.
        summary: one sentence.
        dataset: where the questions are.
        groups: metrics of their own for several configs together.
        columns: further columns: name -> expression; later ones see earlier ones.
        cluster: expression for what a question belongs to, such as ``passage_id``: those of one value are right and
            wrong together, and count as a group in standard errors and intervals.
        description: in front of everything.
        prompt: one question.
        mode: loglikelihood compares the choices' log-probabilities behind the prompt, generate lets the engine write,
            first-token lets it write one token.
        api: completions sends the prompt as it is, chat as a user's message, in the model's template.
        choices: loglikelihood: the possible continuations: a list, or an expression for one.
        contexts: in place of prompt and choices: expression for one prompt per choice.
        continuation: with contexts: expression for what follows each of them.
        gold: number of the right choice, or a list of such, or the choice itself; for a question whose contexts differ,
            the number of the right one.
        answer: generate: the right answer, or a list of right ones; also what a worked example shows.
        wrong: generate: expression for a list of wrong answers, for the metrics that compare with them.
        target_delimiter: between a prompt and what follows it.
        fewshot: worked examples.
        stop: where a written answer ends.
        max_tokens: most tokens of a written answer.
        sampling: fields of each request, such as temperature; greedy without.
        filters: name -> steps; each makes metrics of its own. The name "" adds nothing to a metric's.
        metrics: scores.
        limit: most questions; 0 for all.
        passes: when the test passes; without it, when every question is scored.

    """

    name: str = Field(pattern=_NAME)
    version: str = "1"
    summary: str
    dataset: DatasetCard
    groups: dict[str, list[str]] = {}
    columns: dict[str, str] = {}
    cluster: str = ""
    description: str = ""
    prompt: str = ""
    mode: Mode
    api: Literal["completions", "chat"] = "completions"
    choices: list[str] | str = ""
    contexts: str = ""
    continuation: str = ""
    gold: str | int = ""
    answer: str = ""
    wrong: str = ""
    target_delimiter: str = " "
    fewshot: FewShotCard = FewShotCard()
    stop: list[str] = []
    max_tokens: int = Field(default=256, ge=1)
    sampling: dict[str, float | int | bool] = {}
    filters: dict[str, list[FilterStep]] = {"": []}
    metrics: list[MetricCard] = Field(min_length=1)
    limit: int = Field(default=0, ge=0)
    passes: PassRule | None = None

    @property
    def compares(self) -> bool:
        """Whether choices are compared by their log-probabilities."""
        return self.mode == "loglikelihood"

    def with_shots(self, count: int) -> EvalCard:
        """The same with another number of worked examples; UserError when the card names no source of them."""
        if count and not self.fewshot.split and not self.fewshot.samples:
            raise UserError(f"{self.name}: its card says nowhere where worked examples come from; add fewshot.split")
        return self.model_copy(update={"fewshot": self.fewshot.model_copy(update={"count": count})})

    @model_validator(mode="after")
    def _consistent(self) -> EvalCard:
        if bool(self.prompt) == bool(self.contexts):
            raise ValueError("a card has either a prompt or contexts")
        if self.contexts and not (self.compares and self.continuation):
            raise ValueError("contexts are for mode loglikelihood, with a continuation")
        if self.compares and (self.gold == "" or not (self.choices or self.contexts)):
            raise ValueError("mode loglikelihood needs choices and gold")
        if not self.compares and not self.answer:
            raise ValueError(f"mode {self.mode} needs answer")
        wrong = [m.metric for m in self.metrics if (m.metric in _COMPARING) != self.compares]
        if wrong:
            raise ValueError(f"metric {wrong[0]} does not belong to mode {self.mode}")
        if self.wrong == "" and (needing := [m.metric for m in self.metrics if m.metric in SIMILARITIES]):
            raise ValueError(f"metric {needing[0]} needs wrong")
        if self.passes and self.passes.metric and self.passes.metric not in self.metric_names:
            raise ValueError(
                f"passes: there is no metric {self.passes.metric!r}; {nearest(self.passes.metric, self.metric_names)}"
            )
        if self.passes:
            decides = self.passes.metric or self.metric_names[0]
            low, high = self.bounds(decides)
            if not low <= self.passes.at_least <= high:
                asked = self.passes.at_least
                raise ValueError(f"passes: {decides} lies between {low:g} and {high:g}, not at {asked:g}")
        known = set(self.dataset.configs)
        for group, configs in self.groups.items():
            if unknown := [name for name in configs if name not in known]:
                raise ValueError(f"group {group}: {unknown[0]!r} is no config; {nearest(unknown[0], known)}")
        return self

    def bounds(self, name: str) -> tuple[float, float]:
        """Between what a metric lies, by its name as recorded."""
        filters = [""] if self.compares else list(self.filters)
        kinds = {metric_name(m, one): m.metric for m in self.metrics for one in filters}
        if name not in kinds:
            raise UserError(f"{self.name} has no metric {name!r}; {nearest(name, kinds)}")
        kind = kinds[name]
        return {"max": (0.0, 100.0), "diff": (-100.0, 100.0)}.get(kind.rpartition("_")[2], (0.0, 1.0))

    @property
    def metric_names(self) -> list[str]:
        """What is recorded, in order: the first decides."""
        filters = [""] if self.compares else list(self.filters)
        return [metric_name(metric, one) for one in filters for metric in self.metrics]


_COMPARING = frozenset({"acc", "acc_norm", "acc_bytes", "mc2"})
SIMILARITIES = frozenset(typing.get_args(Similarity))


def metric_name(metric: MetricCard, filter_name: str) -> str:
    """A metric as recorded."""
    return "_".join(part for part in (metric.name or metric.metric, filter_name) if part)


def find(name: str) -> Path:
    """The file of a shipped card; UserError names the nearest known one."""
    path = shipped.DATASETS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"there is no evaluation {name!r}; {nearest(name, shipped_names())}")
    return path


def shipped_names() -> list[str]:
    """All shipped cards."""
    return sorted(path.stem for path in shipped.DATASETS.glob("*.yaml"))


def read(path: Path) -> EvalCard:
    """One card; UserError names the file, the line, the key and the nearest known one."""
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {why(error)}; check the path") from error
    try:
        require_single_keys(path, source)
        content = yaml.safe_load(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError as error:
        raise UserError(f"{path}: not valid YAML: it is nested too deeply") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping, found {type(content).__name__}")
    try:
        return EvalCard.model_validate(content)
    except ValidationError as error:
        raise UserError(explained(path, error, EvalCard)) from error

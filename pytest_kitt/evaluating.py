"""How does an evaluation meet the item that it is recorded for? Questions, responses, scores, and what is stored."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from pytest_kitt import loading, recording, relay, session
from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import EngineRequestError, InvalidMeasurement, Unscorable, UserError
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, drift, prompts, scoring, similarity, subset, ways
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.evals.loglikelihood import TOKENIZE, Answer, Ask, OnAnswer, each_scored
from pytest_kitt.evals.probe import Probed, probe
from pytest_kitt.evals.prompts import Question
from pytest_kitt.evals.scoring import Response, Scored, Scores
from pytest_kitt.load.spec import Adaptive, Calls, Closed, Load, Prompts
from pytest_kitt.measure.records import Failure, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.report import junit
from pytest_kitt.settings import Api

CONCURRENCY = 8
FIRST, MOST = 32, 256
"""Requests under way: at first no more, though the engine has more slots, for a slow one may need them all for one
answer in time; and never more."""
RETRIES = 8
"""Of a question that the server does not take: about a minute and a half, by its own word up to eight."""
_LETTER = 1  # an estimate by the first token says something of choices that are a letter, and of nothing longer
_ESTIMATE = "first_token"
_OLLAMA = ("ollama-chat", "ollama-generate")  # what is said of an answer goes into their options
_ANY = "openai"  # the card of a server of which no more is known
_WHOSE = "if it is an engine of which more is known, say which: --kitt-engine=llama_cpp, vllm, ... beside --kitt-url"
_NS_PER_MS = 1e6
_ONCE: Mapping[str, Any] = {  # each question once; the answers count, not how fast they come
    "warmup": 0,
    "hold": False,
    "bundled": True,
    "certify": False,
    "clients": 1,
    "retries": RETRIES,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What is to be asked, and how.

    Attributes:
        card: of the evaluation.
        questions: those that are asked, in order.
        of: how many there are.
        concurrency: requests under way, None for as many as the server takes.
        session_api: the session's API, which is taken where it has the card's form.
        params: as stored.

    """

    card: EvalCard
    questions: Sequence[Question]
    of: int
    concurrency: int | None
    session_api: Api
    params: Mapping[str, Any]


def evaluate(
    item: pytest.Item,
    engine: RunningEngine,
    source: str | Path,
    *,
    shots: int | None = None,
    limit: int | None = None,
    concurrency: int | None = None,
) -> Scores:
    """Asks an evaluation's questions, scores the responses, and records all of it; ``kitt_evaluate`` says the rest."""
    kitt = session.active(item.config)
    assert kitt is not None
    asked = _asked(item, kitt, source, shots, limit, concurrency)
    params = dict(asked.params)
    ask: Callable[[pytest.Item, RunningEngine, Asked], dict[str, Scored]] = _write
    if asked.card.compares:
        card, probed = _probed(engine, asked.card)
        asked, params["loglikelihood"] = dataclasses.replace(asked, card=card), probed.to_json()
        ask = functools.partial(_compare, probed=probed)
    card = asked.card
    if card.api == "chat":
        params["chat_template"] = drift.checked(engine, api=_api(card, engine, asked.session_api)).to_json()
    answered = _responses(asked.questions, kitt.resumed.answers.get(recording.of(item).key, ()))
    had = {q.id: scoring.score(card, q, answered[q.id]) for q in asked.questions if q.id in answered}
    _send(item, [*had.values()])
    rest = dataclasses.replace(asked, questions=[q for q in asked.questions if q.id not in had])
    found = had | ask(item, engine, rest) if rest.questions else had
    scores = Scores(card, [found[q.id] for q in asked.questions], params, kitt.settings.seed)
    record = recording.of(item)
    record.params |= params | ({"questions_resumed": len(had)} if had else {})
    record.params["scores"] = record.params.get("scores", {}) | dict.fromkeys(card.metric_names, params["data"])
    measured = scores.measurements()
    record.add(measured)
    told = [pair for pair in item.user_properties if pair[0] != junit.DATA]  # an earlier evaluation of the same test
    item.user_properties[:] = [*told, *junit.properties(measured), *junit.data_properties(record.params)]
    return scores


def _asked(
    item: pytest.Item,
    kitt: session.KittSession,
    source: str | Path,
    shots: int | None,
    limit: int | None,
    concurrency: int | None,
) -> Asked:
    named = isinstance(source, str) and not source.endswith(cards.SUFFIX)
    path = cards.find(str(source)) if named else item.path.parent / Path(source).expanduser()
    card = cards.read(path)
    if shots is not None:
        card = card.with_shots(shots)
    if limit is not None and limit < 0:
        raise UserError(f"kitt_evaluate: limit={limit}: it is a number of questions, 0 for all of them")
    similarity.require(card)
    loaded = data.load(card, path.parent, offline=kitt.settings.offline)
    every = prompts.ask(card, loaded.subsets, str(path))
    most = kitt.settings.limit or (card.limit if limit is None else limit)
    questions = subset.choose(every, most, kitt.settings.seed)
    if loaded.origin == "sample":
        what = f"{len(questions)} questions of the sample that ships with its card"
        relay.send(item, "note", text=f"{card.name}: {what}, none of {card.dataset.id}")
    params = {
        "evaluation": card.name,
        "evaluation_version": card.version,
        "data": loaded.origin,
        "data_sha256": loaded.sha256,
        **({"data_revision": card.dataset.revision} if loaded.origin == "hub" else {}),
        "shots": card.fewshot.count,
        "questions": len(questions),
        "questions_of": len(every),
        **({"clusters": len({question.cluster for question in questions})} if card.cluster else {}),
    }
    if concurrency is None and kitt.settings.eval_concurrency != "auto":
        concurrency = kitt.settings.eval_concurrency
    return Asked(card, questions, len(every), concurrency, kitt.settings.api, params)


def load_for(engine: RunningEngine, concurrency: int | None, requests: int) -> Load:
    """How so many requests are sent: some at a time, or as many as the server takes, beginning with its own slots."""
    if concurrency is not None:
        return Closed(min(concurrency, requests))
    return Adaptive(min(engine.slots or CONCURRENCY, FIRST, requests), min(MOST, requests))


def _responses(questions: Sequence[Question], rows: Iterable[Mapping[str, Any]]) -> dict[str, Response]:
    """What an attempt that was cut off has of them already, by the questions' ids; each must be asked as it was."""
    hashes = {question.id: question.prompt_sha256 for question in questions}
    found = {}
    for row in rows:
        try:
            if hashes.get(row["id"]) == row["prompt_sha256"]:
                found[row["id"]] = scoring.response_of(row)
        except (KeyError, TypeError, ValueError):
            continue  # it is asked again
    return found


# -- choices that are compared


def _probed(engine: RunningEngine, card: EvalCard) -> tuple[EvalCard, Probed]:
    """How the engine says log-probabilities, and the card with metrics of another name where it only estimates them."""
    letters = isinstance(card.choices, list) and all(len(choice) == _LETTER for choice in card.choices)
    probed = _probed_once(engine, exact=not letters)
    if isinstance(probed, Unscorable):
        named = f"; {_WHOSE}" if engine.card.name == _ANY else ""
        pytest.skip(f"{card.name} needs log-probabilities: {probed}{named}")
    if probed.exact:
        return card, probed
    renamed = [m.model_copy(update={"name": f"{m.name or m.metric}_{_ESTIMATE}"}) for m in card.metrics]
    return card.model_copy(update={"metrics": renamed}), probed


def _probed_once(engine: RunningEngine, *, exact: bool) -> Probed | Unscorable:
    """What is found out about an engine once, as long as it runs."""
    name = f"log-probabilities, {'exact' if exact else 'estimated'}"
    if name not in engine.found:
        try:
            engine.found[name] = probe(engine, exact=exact)
        except Unscorable as error:
            engine.found[name] = error
    found: Probed | Unscorable = engine.found[name]
    return found


def _compare(item: pytest.Item, engine: RunningEngine, asked: Asked, probed: Probed) -> dict[str, Scored]:
    """The scored responses by the questions' ids; each is on its way to the store as soon as it is known."""
    partial = _Partial(asked.questions)
    found: dict[str, Scored] = {}
    unsent: list[Scored] = []
    failures: list[str] = []  # of loads that have ended: what the server said

    def on_scored(place: int, scored: ways.Scored | Unscorable, e2e_ms: float) -> None:
        if isinstance(scored, Unscorable):
            raise InvalidMeasurement("; ".join([f"{asked.card.name}: {scored}", *failures])) from scored
        for question, response in partial.take(place, scored.logprob, e2e_ms):
            found[question.id] = scoring.score(asked.card, question, response)
            unsent.append(found[question.id])

    def send() -> None:
        _send(item, unsent)
        unsent.clear()

    pairs = [pair for question in asked.questions for pair in question.pairs]
    ask = _timed(item, engine, asked, probed, on_table=send, on_failures=failures.append)
    try:
        each_scored(engine, pairs, ways=probed.ways, ask=ask, on_scored=on_scored)
    finally:
        send()
    return found


class _Partial:
    """Log-probabilities as they come, until a question has those of all of its choices."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._places = [(question, choice) for question in questions for choice in range(len(question.pairs))]
        self._said: dict[str, dict[int, float]] = {question.id: {} for question in questions}
        self._slowest_ms = dict.fromkeys(self._said, -1.0)

    def take(self, place: int, logprob: float, e2e_ms: float) -> Iterator[tuple[Question, Response]]:
        """The question that is complete with this one, if it is."""
        question, choice = self._places[place]
        said = self._said[question.id]
        said[choice] = logprob
        slowest = self._slowest_ms[question.id] = max(self._slowest_ms[question.id], e2e_ms)
        if len(said) == len(question.pairs):
            yield question, Response(logprobs=tuple(said[n] for n in sorted(said)), e2e_ms=slowest)


def _timed(
    item: pytest.Item,
    engine: RunningEngine,
    asked: Asked,
    probed: Probed,
    *,
    on_table: Callable[[], None],
    on_failures: Callable[[str], None],
) -> Ask:
    """Asks by the load client; what is said by the way that was found best counts as the evaluation's load.

    ``on_table`` is called when all answers of a table have been told, ``on_failures`` when a load has ended in which
    requests failed.
    """

    def ask(what: str, path: str, bodies: Iterable[bytes], on_answer: OnAnswer) -> None:
        def on_requests(table: RequestTable) -> None:
            _answered(engine, table, on_answer)
            on_table()

        with tempfile.TemporaryFile() as file:
            count = 0
            for body in bodies:
                file.write(body + b"\n")
                count += 1
            file.flush()
            if not count:
                return
            calls = Calls(path, file.fileno(), count, name=asked.card.name)
            apply = loading.unrecorded if what == TOKENIZE else loading.apply
            result = apply(
                item,
                engine,
                (load_for(engine, asked.concurrency, count), calls, f"requests:{count}"),
                label=_label(item, asked.card.name if what == probed.ways[0] else what),
                api=engine.card.dialects[0],
                on_requests=on_requests,
                **_ONCE,
            )
        if result.failed:
            on_failures(result.failure_text)

    return ask


def _label(item: pytest.Item, name: str) -> str:
    """None for the first load of a test; another evaluation, or another way to ask, gives its name."""
    return name if recording.of(item).loads else ""


def _answered(engine: RunningEngine, table: RequestTable, on_answer: OnAnswer) -> None:
    for row in table.rows():
        if row.failure is Failure.NONE:
            said: Any = orjson.loads(table.texts[row.index])
        else:
            status = f" with status {row.status}" if row.status else ""
            said = EngineRequestError(f"{engine.card.name} answered{status}: {Failure(row.failure).name.lower()}")
        on_answer(row.index, Answer(said, (row.end_ns - row.send_ns) / _NS_PER_MS))


# -- answers that are written


def _write(item: pytest.Item, engine: RunningEngine, asked: Asked) -> dict[str, Scored]:
    """The scored responses by the questions' ids; each is on its way to the store as soon as it is known."""
    card, questions = asked.card, asked.questions
    found: dict[str, Scored] = {}

    def on_requests(table: RequestTable) -> None:
        scored = [scoring.score(card, questions[n], response) for n, response in _said(table) if n < len(questions)]
        found.update({one.question.id: one for one in scored})
        _send(item, scored)

    texts = tuple(question.prompt for question in questions)
    most = 1 if card.mode == "first-token" else card.max_tokens
    api = _api(card, engine, asked.session_api)
    result = loading.apply(
        item,
        engine,
        (
            load_for(engine, asked.concurrency, len(questions)),
            Prompts(texts, most, name=card.name, fields=_fields(card, api)),
            f"requests:{len(questions)}",
        ),
        label=_label(item, card.name),
        api=api,
        keep_text=True,
        unit="questions",
        on_requests=on_requests,
        **_ONCE,
    )
    if lacking := len(questions) - len(found):
        raise InvalidMeasurement(f"{lacking} of {len(questions)} questions got no answer: {result.failure_text}")
    return found


def _said(table: RequestTable) -> Iterable[tuple[int, Response]]:
    """Number and response of each request that was answered, be it with nothing."""
    for row in table.rows():
        if row.failure in (Failure.NONE, Failure.NO_TOKENS):
            e2e_ms = (row.end_ns - row.send_ns) / _NS_PER_MS
            yield row.index, Response(table.texts.get(row.index, ""), (), bool(row.length_finish), row.osl, e2e_ms)


def _api(card: EvalCard, engine: RunningEngine, session_api: Api) -> Api:
    """The API of the card's form: the session's where it has it, or else its like, or else the engine's best."""
    chat = card.api == "chat"
    if apis.DIALECTS[session_api].chat is chat:
        return session_api
    if session_api in _OLLAMA:
        return "ollama-chat" if chat else "ollama-generate"
    return next((api for api in engine.card.dialects if apis.DIALECTS[api].chat is chat), card.api)


def _fields(card: EvalCard, api: Api) -> dict[str, Any]:
    fields: dict[str, Any] = {**({"stop": card.stop} if card.stop else {}), **card.sampling}
    return {"options": fields} if api in _OLLAMA else fields


def _send(item: pytest.Item, scored: Sequence[Scored]) -> None:
    if scored:
        rows = b"".join(orjson.dumps(one.to_row()) + b"\n" for one in scored)
        relay.send_samples(item, Block("jsonl", len(scored), rows))

"""How does an evaluation meet the item that it is recorded for? Questions, responses, scores, and what is stored."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from pytest_kitt import loading, recording, relay, session
from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import InvalidMeasurement, Unscorable
from pytest_kitt.evals import card as cards
from pytest_kitt.evals import data, prompts, scoring, similarity, subset
from pytest_kitt.evals.card import EvalCard
from pytest_kitt.evals.loglikelihood import loglikelihood
from pytest_kitt.evals.probe import Probed, probe
from pytest_kitt.evals.prompts import Question
from pytest_kitt.evals.scoring import Response, Scored, Scores
from pytest_kitt.load.run import Progress
from pytest_kitt.load.spec import Prompts
from pytest_kitt.measure.records import Failure, Phase, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.report import junit
from pytest_kitt.report.progress import Step
from pytest_kitt.settings import Api

CONCURRENCY = 8
_CHUNK = 64  # questions between two looks at how far it is
_LETTER = 1  # an estimate by the first token says something of choices that are a letter, and of nothing longer
_ESTIMATE = "first_token"
_OLLAMA = ("ollama-chat", "ollama-generate")  # what is said of an answer goes into their options
_NS_PER_MS = 1e6


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What is to be asked, and how.

    Attributes:
        card: of the evaluation.
        questions: those that are asked, in order.
        of: how many there are.
        concurrency: requests under way.
        session_api: the session's API, which is taken where it has the card's form.
        params: as stored.

    """

    card: EvalCard
    questions: Sequence[Question]
    of: int
    concurrency: int
    session_api: Api
    params: Mapping[str, Any]


def evaluate(
    item: pytest.Item,
    engine: RunningEngine,
    source: str | Path,
    *,
    shots: int | None = None,
    limit: int | None = None,
    concurrency: int = CONCURRENCY,
) -> Scores:
    """Asks an evaluation's questions, scores the responses, and records all of it; ``kitt_evaluate`` says the rest."""
    kitt = session.active(item.config)
    assert kitt is not None
    asked = _asked(item, kitt, source, shots, limit, concurrency)
    params = dict(asked.params)
    ask: Callable[[pytest.Item, RunningEngine, Asked], dict[str, Response]] = _write
    if asked.card.compares:
        card, probed = _probed(engine, asked.card)
        asked, params["loglikelihood"] = dataclasses.replace(asked, card=card), probed.to_json()
        ask = functools.partial(_compare, probed=probed)
    card = asked.card
    had = _responses(asked.questions, kitt.resumed.answers.get(recording.of(item).key, ()))
    _send(item, [scoring.score(card, q, had[q.id]) for q in asked.questions if q.id in had])
    rest = dataclasses.replace(asked, questions=[q for q in asked.questions if q.id not in had])
    found = had | ask(item, engine, rest) if rest.questions else had
    scores = Scores(card, [scoring.score(card, q, found[q.id]) for q in asked.questions], params, kitt.settings.seed)
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
    concurrency: int,
) -> Asked:
    named = isinstance(source, str) and not source.endswith(cards.SUFFIX)
    path = cards.find(str(source)) if named else item.path.parent / Path(source).expanduser()
    card = cards.read(path)
    if shots is not None:
        card = card.with_shots(shots)
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
    return Asked(card, questions, len(every), concurrency, kitt.settings.api, params)


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
    try:
        probed = probe(engine, exact=not letters)
    except Unscorable as error:
        pytest.skip(f"{card.name} needs log-probabilities: {error}")
    if probed.exact:
        return card, probed
    renamed = [m.model_copy(update={"name": f"{m.name or m.metric}_{_ESTIMATE}"}) for m in card.metrics]
    return card.model_copy(update={"metrics": renamed}), probed


def _compare(item: pytest.Item, engine: RunningEngine, asked: Asked, probed: Probed) -> dict[str, Response]:
    found: dict[str, Response] = {}
    begun = time.monotonic()
    step = Step(unit="questions", total=len(asked.questions))
    try:
        for first in range(0, len(asked.questions), _CHUNK):
            now = Progress(done=first, phase=Phase.MEASURED, measured_s=time.monotonic() - begun)
            relay.send_step(item, "", dataclasses.replace(step, now=now))
            some = asked.questions[first : first + _CHUNK]
            said = _logprobs(engine, some, probed, asked.concurrency)
            found |= said
            _send(item, [scoring.score(asked.card, question, said[question.id]) for question in some])
    except Unscorable as error:
        raise InvalidMeasurement(f"{asked.card.name}: {error}") from error
    finally:
        relay.send_step(item, "", None)
    return found


def _logprobs(
    engine: RunningEngine, questions: Sequence[Question], probed: Probed, concurrency: int
) -> dict[str, Response]:
    pairs = [pair for question in questions for pair in question.pairs]
    scored = iter(loglikelihood(engine, pairs, ways=probed.ways, concurrency=concurrency))
    return {q.id: Response(logprobs=tuple(next(scored).logprob for _ in q.pairs)) for q in questions}


# -- answers that are written


def _write(item: pytest.Item, engine: RunningEngine, asked: Asked) -> dict[str, Response]:
    """The responses by the questions' ids; each is on its way to the store as soon as it is known."""
    card, questions = asked.card, asked.questions
    found: dict[str, Response] = {}

    def on_requests(table: RequestTable) -> None:
        said = {questions[n].id: (questions[n], response) for n, response in _said(table) if n < len(questions)}
        found.update({name: response for name, (_, response) in said.items()})
        _send(item, [scoring.score(card, question, response) for question, response in said.values()])

    texts = tuple(question.prompt for question in questions)
    most = 1 if card.mode == "first-token" else card.max_tokens
    api = _api(card, engine, asked.session_api)
    result = loading.apply(
        item,
        engine,
        (
            f"closed:{min(asked.concurrency, len(questions))}",
            Prompts(texts, most, name=card.name, fields=_fields(card, api)),
            f"requests:{len(questions)}",
        ),
        api=api,
        warmup=0,
        hold=False,
        keep_text=True,
        bundled=True,
        certify=False,  # the answers count, not how fast they come
        clients=1,
        unit="questions",
        on_requests=on_requests,
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

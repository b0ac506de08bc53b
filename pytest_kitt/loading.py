"""How does a load meet the item that it is recorded for? And the tiny model's questions, which are one."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from pytest_kitt import recording, relay, session
from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import UserError
from pytest_kitt.evals import drift, exact_match, questions
from pytest_kitt.load import apply as loads
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.run import Progress
from pytest_kitt.load.spec import Prompts
from pytest_kitt.load.spool import SpooledBlock
from pytest_kitt.measure.records import RequestTable
from pytest_kitt.measure.repeats import RUN
from pytest_kitt.measure.results import Block, Measurement
from pytest_kitt.report import junit
from pytest_kitt.report.progress import Step
from pytest_kitt.settings import Api

_TELL_EVERY_S = 0.15
_INSTRUCTION = "Answer with the number, word or letter alone.\n"


def apply(
    item: pytest.Item,
    engine: RunningEngine,
    asked: tuple[Any, Any, Any],
    *,
    label: str = "",
    api: Api | None = None,
    unit: str = "requests",
    on_requests: Callable[[RequestTable], None] = lambda _: None,
    **options: Any,
) -> LoadResult:
    """Runs a load on an engine and records its standard metrics for an item, and its blocks as they come.

    ``unit`` is what the requests are called while it runs; ``on_requests`` gets those that have ended, as they do.
    """
    record = recording.of(item)
    if label in record.loads:
        raise UserError(
            "a further kitt_load in one test needs label='...', so that its metrics have names of their own"
        )
    kitt, wanted = _wanted(item, engine, asked, api, options)
    record.loads.append(label)
    first_block = record.blocks

    def on_block(block: SpooledBlock, table: RequestTable) -> None:
        record.blocks += 1
        relay.send_samples(item, block)
        on_requests(table)

    try:
        with _told(item, _step(wanted, label, unit)) as on_progress:
            result = loads.apply(wanted, engine, mark=kitt.mark, on_progress=on_progress, on_block=on_block)
    except loads.Stopped as stopped:
        _record(record, label, stopped.result, first_block)
        raise stopped.cause from None
    found = _record(record, label, result, first_block)
    certified = str(result.certificate.holds).lower()
    item.user_properties.append((f"kitt.{label}.certified" if label else "kitt.certified", certified))
    loads.require_trust(result, wanted, engine)
    item.user_properties += junit.properties(found)
    return result


def unrecorded(
    item: pytest.Item,
    engine: RunningEngine,
    asked: tuple[Any, Any, Any],
    *,
    label: str,
    api: Api,
    on_requests: Callable[[RequestTable], None],
    **options: Any,
) -> LoadResult:
    """Runs a load of which nothing is kept but what ``on_requests`` makes of it."""
    kitt, wanted = _wanted(item, engine, asked, api, options)
    try:
        with _told(item, _step(wanted, label, "requests")) as on_progress:
            result = loads.apply(
                wanted, engine, mark=kitt.mark, on_progress=on_progress, on_block=lambda _, table: on_requests(table)
            )
    except loads.Stopped as stopped:
        raise stopped.cause from None
    loads.require_trust(result, wanted, engine)
    return result


def _wanted(
    item: pytest.Item,
    engine: RunningEngine,
    asked: tuple[Any, Any, Any],
    api: Api | None,
    options: Mapping[str, Any],
) -> tuple[session.KittSession, loads.Asked]:
    """The load in full, with what the session's settings say of all loads."""
    kitt = session.active(item.config)
    if kitt is None:
        raise UserError("kitt_load: nothing of kitt is active in this session")
    spoken = api or kitt.settings.api
    if lacking := engine.card.lacks_dialect(spoken):
        raise UserError(f"kitt_load: {lacking}")
    given = {
        "clients": kitt.settings.clients,
        "timeout_s": kitt.settings.request_timeout,
        "certify": kitt.settings.certify == "require",
        **{name: value for name, value in options.items() if value is not None},
        **({"warmup": 0} if kitt.settings.skip_warmup else {}),
        **({"bundled": True} if kitt.settings.bundled else {}),
    }
    return kitt, loads.asked(*asked, api=spoken, seed=_seed(item, kitt.settings.seed), **given)


def _step(wanted: loads.Asked, label: str, unit: str) -> Step:
    stop = wanted.stop
    return Step(label, unit=unit, total=stop.requests, seconds=stop.seconds, warmup=wanted.warmup)


def _seed(item: pytest.Item, seed: int) -> int:
    """The seed of an item: each of several runs has its own."""
    callspec = getattr(item, "callspec", None)
    return seed + (int(callspec.params.get(RUN, 1)) - 1 if callspec else 0)


@contextlib.contextmanager
def _told(item: pytest.Item, step: Step) -> Iterator[Callable[[Progress], None]]:
    """Tells where results arrive how far a load is."""
    told_at = time.monotonic()

    def tell(now: Progress) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_EVERY_S:
            told_at = time.monotonic()
            relay.send_step(item, step.label, dataclasses.replace(step, now=now))

    relay.send_step(item, step.label, step)
    try:
        yield tell
    except Exception:  # an interrupt ends the item, and with it all that it is busy with
        relay.send_step(item, step.label, None)
        raise
    relay.send_step(item, step.label, None)


def _record(record: recording.Recording, label: str, result: LoadResult, first_block: int) -> list[Measurement]:
    """Keeps what a load left, good or not: the outcome says how far it can be trusted."""
    params = result.params | {"blocks": [first_block, record.blocks]}
    record.params.update({f"{label}.{key}" if label else key: value for key, value in params.items()})
    found = [dataclasses.replace(m, name=f"{label}.{m.name}" if label else m.name) for m in result.measurements()]
    record.add(found)
    return found


def evaluate(
    item: pytest.Item, engine: RunningEngine, *, concurrency: int, limit: int, max_tokens: int
) -> exact_match.Evaluation:
    """Asks the questions, scores the answers, and records accuracy beside the speed of the same answers."""
    kitt = session.active(item.config)
    assert kitt is not None
    asked = questions.load(kitt.settings.prompts, limit)
    if apis.DIALECTS[api := kitt.settings.api].chat and api in engine.card.dialects:
        recording.of(item).params["chat_template"] = drift.checked(engine, api=api).to_json()
    had = exact_match.responses(asked, kitt.resumed.answers.get(recording.of(item).key, ()))
    _send_rows(item, [exact_match.Scored(asked[n], text) for n, text in had.items()])
    found = had | _ask(item, engine, {n: q for n, q in enumerate(asked) if n not in had}, concurrency, max_tokens)
    _send_rows(item, [exact_match.Scored(q, None) for n, q in enumerate(asked) if n not in found])
    evaluation = exact_match.score(asked, found)
    record = recording.of(item)
    record.params |= {"questions": len(asked), **({"questions_resumed": len(had)} if had else {})}
    record.params["scores"] = record.params.get("scores", {}) | {"accuracy": ""}
    record.add(evaluation.measurements())
    item.user_properties += junit.properties(evaluation.measurements())
    return evaluation


def _ask(
    item: pytest.Item, engine: RunningEngine, asked: Mapping[int, questions.Question], concurrency: int, max_tokens: int
) -> dict[int, str]:
    """The responses by the questions' numbers; each is on its way to the store as soon as it is known."""
    found: dict[int, str] = {}
    if not asked:
        return found
    numbers = list(asked)

    def on_requests(table: RequestTable) -> None:
        texts = table.texts
        found.update({numbers[index]: text for index, text in texts.items()})
        _send_rows(item, [exact_match.Scored(asked[numbers[index]], text) for index, text in texts.items()])

    kitt = session.active(item.config)
    assert kitt is not None
    chat = apis.DIALECTS[kitt.settings.api].chat
    lead = "" if engine.cell.model.toy else _INSTRUCTION
    texts = tuple(lead + question.prompt(chat=chat) for question in asked.values())
    apply(
        item,
        engine,
        (
            f"closed:{min(concurrency, len(asked))}",
            Prompts(texts, max_tokens, name="questions"),
            f"requests:{len(asked)}",
        ),
        warmup=0,
        hold=False,
        keep_text=True,
        certify=False,  # the answers count, not how fast they come
        clients=1,
        unit="questions",
        on_requests=on_requests,
    )
    return found


def _send_rows(item: pytest.Item, scored: Sequence[exact_match.Scored]) -> None:
    if scored:
        relay.send_samples(item, Block("jsonl", len(scored), exact_match.to_jsonl(scored)))

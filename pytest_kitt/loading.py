"""How do a load and an evaluation meet the item they are recorded for?"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pytest_kitt import recording, session
from pytest_kitt.dialect.openai import PATHS, Api
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.errors import UserError, nearest
from pytest_kitt.evals import exact_match, questions
from pytest_kitt.load import apply as loads
from pytest_kitt.load.result import LoadResult
from pytest_kitt.load.spec import Prompts
from pytest_kitt.measure.records import CODEC, RequestTable
from pytest_kitt.measure.results import Block
from pytest_kitt.report import junit, progress

_INSTRUCTION = "Answer with the number, word or letter alone.\n"


def apply(
    item: pytest.Item,
    engine: RunningEngine,
    asked: tuple[Any, Any, Any],
    *,
    label: str = "",
    api: Api | None = None,
    **options: Any,
) -> LoadResult:
    """Runs a load on an engine and records its blocks and standard metrics for an item."""
    kitt = session.active(item.config)
    if kitt is None:
        raise UserError("kitt_load: nothing of kitt is active in this session")
    record = recording.of(item)
    if label in record.loads:
        raise UserError(
            "a further kitt_load in one test needs label='...', so that its metrics have names of their own"
        )
    if api is not None and api not in PATHS:
        raise UserError(f"kitt_load: api {api!r} is unknown; {nearest(api, PATHS)}")
    record.loads.append(label)
    wanted = loads.asked(*asked, api=api or kitt.settings.api, seed=kitt.settings.seed, **options)
    total = wanted.stop.requests
    with progress.shown(item.config, item.name, total) as on_progress:
        result, blocks = loads.apply(wanted, engine, mark=kitt.mark, on_progress=on_progress)
    record.params.update({f"{label}.{key}" if label else key: value for key, value in result.params.items()})
    record.blocks += [Block(CODEC, len(RequestTable.from_bytes(block)), block) for block in blocks]
    found = [dataclasses.replace(m, name=f"{label}.{m.name}" if label else m.name) for m in result.measurements()]
    record.add(found)
    item.user_properties += junit.properties(found)
    return result


def evaluate(
    item: pytest.Item, engine: RunningEngine, *, concurrency: int, limit: int, max_tokens: int
) -> exact_match.Evaluation:
    """Asks the questions, scores the answers, and records accuracy beside the speed of the same answers."""
    kitt = session.active(item.config)
    assert kitt is not None
    asked = questions.load(kitt.settings.prompts, limit)
    lead = "" if engine.cell.model.toy else _INSTRUCTION
    prompts = Prompts(tuple(lead + q.question for q in asked), max_tokens, name="questions")
    result = apply(
        item,
        engine,
        (f"closed:{min(concurrency, len(asked))}", prompts, f"requests:{len(asked)}"),
        warmup=0,
        hold=False,
        keep_text=True,
    )
    evaluation = exact_match.score(asked, result.records.texts)
    record = recording.of(item)
    record.params["questions"] = len(asked)
    record.add(evaluation.measurements())
    record.blocks.append(Block("jsonl", evaluation.n, evaluation.to_jsonl()))
    item.user_properties += junit.properties(evaluation.measurements())
    return evaluation

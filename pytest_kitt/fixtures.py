"""Which fixtures do tests take? A ladder of small rungs, each of which a conftest may replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_kitt.engine.base import RunningEngine
    from pytest_kitt.engine.memory import MemoryWatch
    from pytest_kitt.load.result import LoadResult
    from pytest_kitt.load.spec import Load as LoadSpec
    from pytest_kitt.load.spec import Stop, Workload
    from pytest_kitt.matrix import Cell
    from pytest_kitt.measure.metrics import Better
    from pytest_kitt.settings import Api


class Load(Protocol):
    """What ``kitt_load`` is."""

    def __call__(
        self,
        load: LoadSpec | str = "closed:1",
        workload: Workload | str = "synthetic:128:64",
        stop: Stop | str = "requests:20",
        *,
        label: str = "",
        api: Api | None = None,
        warmup: int | None = None,
        hold: bool = True,
        keep_text: bool = False,
        bundled: bool = False,
        certify: bool | None = None,
        timeout_s: float | None = None,
        clients: int | None = None,
        retries: int = 0,
    ) -> LoadResult:
        """Applies a load to the cell's engine and records its standard metrics for this test.

        Args:
            load: ``Closed``, ``Adaptive`` or ``Arrivals``, or a short form: "closed:8", "adaptive:256",
                "constant:10/s", "poisson:10/s", "gamma:10/s:2".
            workload: ``Synthetic`` or ``Prompts``, or "synthetic:PROMPT_TOKENS:OUTPUT_TOKENS", "prompts:FILE".
            stop: ``Stop``, or "requests:100", "seconds:60", each with ",errors:20%" for an early end.
            label: name of a further load in the same test; its metrics are ``label.ttft_ms`` and so on.
            api: which API to load; the session's by default.
            warmup: uncounted requests in front; by default one per slot, or two seconds of arrivals.
            hold: keep the load up with uncounted requests until the last measured one has ended.
            keep_text: record the answers' texts.
            bundled: the server sends several tokens together, and that is fine: ``itl_ms`` is left out.
            certify: False records what broke the certificate and goes on, the numbers may be the client's; by default
                as ``--kitt-certify`` says.
            timeout_s: limit of one request, in seconds.
            clients: processes that share the load.
            retries: how often a request is sent again that the server did not take (429, 503, 529, or a connection
                that breaks); its times are those of the last attempt. By default it is a failed request.

        Raises:
            UserError: a short form or a number that makes no sense.
            InvalidMeasurement: no request succeeded, the load ended early, or the client cannot prove that it
                applied the load (docs/loads.md has the bounds).

        """
        ...


class Measure(Protocol):
    """What ``kitt_measure`` is."""

    def __call__(
        self,
        name: str,
        value: float,
        *,
        unit: str,
        better: Better,
        stat: str = "value",
        n: int = 1,
        ci: tuple[float, float] | None = None,
        method: str | None = None,
    ) -> None:
        """Records one number for this test."""
        ...


class Evaluate(Protocol):
    """What ``kitt_evaluate`` is."""

    def __call__(
        self,
        card: str | Path | None = None,
        *,
        shots: int | None = None,
        limit: int | None = None,
        concurrency: int | None = None,
        max_tokens: int = 24,
    ) -> Any:
        """Asks the questions of an evaluation and records its scores for this test (docs/evaluations.md).

        Args:
            card: name of a shipped one, or a file ``NAME.kitt.yaml`` beside the test; without one the questions of
                ``--kitt-prompts``, scored to the letter.
            shots: worked examples in front of each question, in place of the card's number.
            limit: most questions, where ``--kitt-limit`` does not say.
            concurrency: requests under way; by ``--kitt-eval-concurrency`` without, which by default means as many as
                the server takes. Without a card 4.
            max_tokens: of an answer, without a card.

        Returns:
            ``Scores``: ``scores["acc"].value``, ``.stderr``, ``.interval``, ``.n``; without a card an ``Evaluation``.

        Raises:
            UserError: a card that is none, or questions that cannot be had.
            InvalidMeasurement: a question that got no answer, or none that can be scored.

        """
        ...


@pytest.fixture(scope="session")
def kitt_engine(request: pytest.FixtureRequest) -> RunningEngine:
    """The engine of this cell, one start per cell: url, version, generate, chat, stream, tokenize, capabilities."""
    from pytest_kitt import session

    kitt = session.active(request.config)
    cell = getattr(request, "param", None)
    if kitt is None or cell is None:
        raise pytest.UsageError("kitt_engine: no cell was made for this test; is its fixture requested dynamically?")
    return cast("RunningEngine", session.EngineHandle(kitt.engines, cell))


@pytest.fixture(scope="session")
def kitt_cell(kitt_engine: RunningEngine) -> Cell:
    """The cell under test: engine, model, runtime, key, id."""
    return kitt_engine.cell


@pytest.fixture
def kitt_run(request: pytest.FixtureRequest) -> int:
    """Which of the runs that ``--kitt-runs`` asks for this is: 1, 2, ..."""
    return int(getattr(request, "param", 1))


@pytest.fixture
def kitt_load(request: pytest.FixtureRequest, kitt_engine: RunningEngine) -> Load:
    """Applies a load: ``kitt_load("closed:8", "synthetic:200:128", "requests:100") -> LoadResult``."""

    def load(
        load: LoadSpec | str = "closed:1",
        workload: Workload | str = "synthetic:128:64",
        stop: Stop | str = "requests:20",
        *,
        label: str = "",
        api: Api | None = None,
        warmup: int | None = None,
        hold: bool = True,
        keep_text: bool = False,
        bundled: bool = False,
        certify: bool | None = None,
        timeout_s: float | None = None,
        clients: int | None = None,
        retries: int = 0,
        **unknown: Any,
    ) -> LoadResult:
        from pytest_kitt import loading

        if unknown:
            raise _unknown_argument(next(iter(unknown)))
        options: dict[str, Any] = {"warmup": warmup, "hold": hold, "keep_text": keep_text, "bundled": bundled}
        options |= {"certify": certify, "timeout_s": timeout_s, "clients": clients, "retries": retries}
        return loading.apply(request.node, kitt_engine, (load, workload, stop), label=label, api=api, **options)

    return load


def _unknown_argument(name: str) -> Exception:
    import inspect

    from pytest_kitt.errors import UserError, nearest

    known = [known for known in inspect.signature(Load.__call__).parameters if known != "self"]
    return UserError(f"kitt_load: {name!r} is no argument; {nearest(name, known)}")


@pytest.fixture
def kitt_measure(request: pytest.FixtureRequest) -> Measure:
    """Records a number: ``kitt_measure("accuracy", 0.9, unit="share", better="higher", n=50)``."""

    def measure(
        name: str,
        value: float,
        *,
        unit: str,
        better: Better,
        stat: str = "value",
        n: int = 1,
        ci: tuple[float, float] | None = None,
        method: str | None = None,
    ) -> None:
        from pytest_kitt import recording
        from pytest_kitt.measure.results import Measurement

        low, high = ci or (None, None)
        recording.of(request.node).add(
            [Measurement(name, stat, float(value), unit, better, n, ci_low=low, ci_high=high, method=method)]
        )

    return measure


@pytest.fixture
def kitt_memory(kitt_engine: RunningEngine) -> Iterator[MemoryWatch]:
    """Watches the memory of the engine's processes while the test runs; skips where it cannot be known."""
    from pytest_kitt.engine import memory

    if reason := memory.unknown(kitt_engine.pid, container=kitt_engine.image is not None):
        pytest.skip(reason)
    with memory.MemoryWatch(kitt_engine.pid) as watch:
        yield watch


@pytest.fixture
def kitt_evaluate(request: pytest.FixtureRequest, kitt_engine: RunningEngine) -> Evaluate:
    """Asks questions and scores the answers: ``kitt_evaluate("mmlu") -> Scores``."""

    def evaluate(
        card: str | Path | None = None,
        *,
        shots: int | None = None,
        limit: int | None = None,
        concurrency: int | None = None,
        max_tokens: int = 24,
    ) -> Any:
        if card is None:
            from pytest_kitt import loading

            plain = {"concurrency": concurrency or 4, "limit": 50 if limit is None else limit}
            return loading.evaluate(request.node, kitt_engine, **plain, max_tokens=max_tokens)
        from pytest_kitt import evaluating

        options = {"shots": shots, "limit": limit, "concurrency": concurrency}
        return evaluating.evaluate(request.node, kitt_engine, card, **options)

    return evaluate

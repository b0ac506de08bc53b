"""What happens where results arrive? The run is opened and closed, records are heard, results are told and shown.

That is in the one process of a plain session, and on the controller of pytest-xdist.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import shlex
import signal
import time
from collections.abc import Generator, Mapping
from typing import Any

import pytest

from pytest_kitt import options, relay
from pytest_kitt.benchmark import benchmark_of
from pytest_kitt.comparing import Consistency
from pytest_kitt.engine import lease
from pytest_kitt.measure.results import Result, RunStatus
from pytest_kitt.report import terminal
from pytest_kitt.report.live import Live, uncaptured
from pytest_kitt.resume import PLANNED
from pytest_kitt.session import KittSession

_WORKERS_END_S = 10.0
_CRASHED = "???"  # the phase of an item that a worker died in, as xdist reports it


class Controller:
    """Registered beside the conductor, but not in a worker."""

    def __init__(self, config: pytest.Config, kitt: KittSession) -> None:
        self.config, self.kitt = config, kitt
        self._under_way: dict[str, Result] = {}  # by node id
        self._results: list[Result] = []
        self._begun = False
        self._valve = relay.Valve()
        self._pids: dict[str, int] = {}  # of workers on this machine
        self._life = contextlib.ExitStack()
        self._recorder: Any = None
        self._live = Live(config)
        config.pluginmanager.register(self._live, relay.LIVE)
        self._scheduler: Any = None
        self._planned = kitt.resumed.planned
        self._said_trouble = False
        self._consistency = Consistency(kitt)

    # -- the run

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Opens the run around the items, if there is a benchmark among them."""
        workers = self.config.pluginmanager.get_plugin("dsession")
        wanted = workers or self.kitt.resumed.run_id or any(benchmark_of(item) for item in session.items)
        if session.config.option.collectonly or not wanted:
            return (yield)
        from pytest_kitt.store.recorder import StoreRecorder

        with options.usage_errors():
            lease.folder()
            self._recorder = self._life.enter_context(StoreRecorder(self.kitt.settings.db))
        self.config.pluginmanager.register(self._recorder, "kitt-store")
        self._life.callback(self.config.pluginmanager.unregister, self._recorder)
        resumed = bool(self.kitt.resumed.run_id)
        with self.kitt.interrupts.held():
            self.config.hook.pytest_kitt_run_started(config=self.config, run=self.kitt.run, resumed=resumed)
            self._begun = True
        try:
            return (yield)
        except KeyboardInterrupt:
            self.kitt.interrupts.heard()
            if workers:
                self._hear_the_rest(workers)
            raise

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what a report brings of ours."""
        record, result = relay.taken_record(report), relay.taken_result(report)
        if record is not None:
            with self.kitt.interrupts.held():
                self._hear(report.nodeid, record, _worker(report))
        elif result is not None:
            with self.kitt.interrupts.held():
                self._conclude(result)
        elif str(report.when) == _CRASHED and report.nodeid in self._under_way:
            self._crashed(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_logreport")
    def pytest_forget_record(self, report: pytest.TestReport) -> Generator[None, object, object]:
        """The terminal keeps every report to the end of the session: not those that only carried a record."""
        try:
            return (yield)
        finally:
            reporter = self.config.pluginmanager.get_plugin("terminalreporter")
            kept = reporter.stats.get("", []) if relay.is_record(report) and reporter is not None else []
            if kept and kept[-1] is report:
                kept.pop()

    def _hear(self, nodeid: str, record: Mapping[str, Any], worker: str) -> None:
        kind = record["kind"]
        if kind == "begun":
            self._under_way[nodeid] = Result.from_json(record["result"])
            self._take_plan(frozenset(record["planned"]))
        elif kind == "started":
            self._under_way[nodeid] = known = Result.from_json(record["result"])
            self.config.hook.pytest_kitt_item_started(config=self.config, result=known)
        elif kind == "samples":
            block = relay.block(record)
            self.config.hook.pytest_kitt_samples(config=self.config, nodeid=nodeid, samples=block)
            if worker:  # only what came from one has passed the valve
                self._valve.leave(len(block.data))
        elif kind == "progress":
            self._live.take(nodeid, worker, record)
        elif kind == "event":
            self.config.hook.pytest_kitt_event(
                config=self.config, kind=record["what"], at=record["at"], about=record["about"]
            )
        elif kind == "note":
            self._say(f"{worker}: {record['text']}" if worker else record["text"])
        elif kind == "result":
            self._conclude(Result.from_json(record["result"]))

    def _take_plan(self, keys: frozenset[str]) -> None:
        if new := keys - self._planned:
            self._planned |= new
            about = {"keys": sorted(new)}
            self.config.hook.pytest_kitt_event(config=self.config, kind=PLANNED, at=time.time(), about=about)

    def _say(self, text: str) -> None:
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self.config.option.verbose >= 0:
            with uncaptured(self.config):
                reporter.ensure_newline()
                reporter.write_line(f"kitt: {text}")

    def _conclude(self, result: Result) -> None:
        self._under_way.pop(result.nodeid, None)
        self._live.forget(nodeid=result.nodeid)
        self._results.append(result)
        self.config.hook.pytest_kitt_result(config=self.config, result=result)
        if self._recorder is not None and self._recorder.trouble and not self._said_trouble:
            self._said_trouble = True
            why = f"{self._recorder.where} takes no more: {self._recorder.trouble}"
            self._say(f"{why}; make room, what is measured waits in memory")

    def _crashed(self, report: pytest.TestReport) -> None:
        """A worker died in mid-item: what it had sent is kept, and the result says why there is no more."""
        reason = f"{str(report.longrepr).strip()}; what was measured until then is kept"
        known = self._under_way[report.nodeid]
        self._conclude(dataclasses.replace(known, outcome="error", reason=reason))

    # -- workers

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tells a worker what only the controller may find out."""
        node.workerinput["kitt"] = self.kitt.for_workers()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Remembers the process of a worker on this machine."""
        process = getattr(getattr(node.gateway, "_io", None), "popen", None)
        if process is not None:
            self._pids[node.gateway.id] = process.pid

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker that is gone is busy with nothing."""
        self._live.forget(worker=node.gateway.id)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Whole cells to workers."""
        from pytest_kitt.scheduling import cells_to_workers

        self._scheduler = cells_to_workers(config, log, cell_of=self.kitt.cell_id_of, demand=self.kitt.demand)
        return self._scheduler

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_from_serializable(self, data: dict[str, Any]) -> None:
        """Runs in the thread that reads from a worker: it waits here while too much is still to be written."""
        if size := relay.size_of(data):
            self._valve.enter(size)

    def _hear_the_rest(self, workers: Any) -> None:
        """After Ctrl-C: the workers end their items, and what they still send is heard."""
        self._end_workers()
        self.kitt.interrupts.hurry.append(self._end_workers)
        active = set(workers._active_nodes)  # noqa: SLF001 - xdist offers no way to wait for its workers
        deadline = time.monotonic() + _WORKERS_END_S
        while active and time.monotonic() < deadline:
            try:
                name, content = workers.queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if name == "testreport":
                self.config.hook.pytest_runtest_logreport(report=content["rep"])
            elif name in ("workerfinished", "errordown", "internal_error"):
                active.discard(content["node"])

    def _end_workers(self) -> None:
        for pid in self._pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    # -- ending

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Closes the run."""
        self._live.close()
        try:
            done = self.kitt.resumed.done
            asked_for = done if self.config.pluginmanager.hasplugin("dsession") else done & self.kitt.planned
            if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and asked_for:  # nothing was left to do
                exitstatus = session.exitstatus = pytest.ExitCode.OK
            if self._begun:
                self._finish(session, exitstatus)
        finally:
            self._life.close()

    def _finish(self, session: pytest.Session, exitstatus: int) -> None:
        for known in list(self._under_way.values()):  # of a worker that did not answer any more
            self._conclude(dataclasses.replace(known, reason="its worker was stopped; what it had sent is kept"))
        left = self._scheduler.left if self._scheduler is not None else []
        if exitstatus == pytest.ExitCode.OK and left:  # and no worker to run them
            exitstatus = session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._consistency.look(self._results)
        if exitstatus == pytest.ExitCode.OK and self._consistency.missed:
            exitstatus = session.exitstatus = pytest.ExitCode.TESTS_FAILED
        status = self._status(int(exitstatus))
        with contextlib.suppress(KeyboardInterrupt), self.kitt.interrupts.held():
            self.config.hook.pytest_kitt_run_finished(
                config=self.config, run=self.kitt.run, status=status, exit_status=int(exitstatus)
            )
        if self._recorder.waiting:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    @property
    def _outcomes(self) -> dict[str, str]:
        """Of the last attempt at each result of the run, by key."""
        return {**self.kitt.resumed.outcomes, **{result.key: result.outcome for result in self._results}}

    def _status(self, exit_status: int) -> RunStatus:
        """The run's, over all of its sessions: what it lacks, or what of it did not pass."""
        outcomes = self._outcomes
        fresh = not self.kitt.resumed.run_id
        if self._planned - outcomes.keys() or (fresh and exit_status == pytest.ExitCode.INTERRUPTED):
            return "interrupted"
        if "failed" in outcomes.values() or self._consistency.missed:
            return "failed"
        bad = {"error", "invalid"} & set(outcomes.values())
        return "error" if bad or (fresh and exit_status != pytest.ExitCode.OK) else "passed"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The table of results."""
        where = f"run {self.kitt.run.id}: kitt results show {self.kitt.run.id}"
        terminal.summary(terminalreporter, self.kitt.cells, self._results, where)
        self._consistency.show(terminalreporter)
        if self.kitt.kept is not None:
            terminal.kept(terminalreporter, self.kitt.kept)
        if self.kitt.resumed.run_id:
            there = len(self.kitt.resumed.done)
            terminalreporter.write_line(f"resumed run {self.kitt.run.id}, which had {there} good results already")
        missing = _missing(self._planned, self._outcomes)
        if self._begun and missing and terminalreporter.verbosity >= 0:
            argv = [word for word in self.kitt.run.argv if not word.startswith("--kitt-resume")]
            again = shlex.join([*argv, f"--kitt-resume={self.kitt.run.id}"])
            terminalreporter.write_line(f"{missing} of {len(self._planned)} results are missing or not good: {again}")
        if self._recorder is not None and self._recorder.waiting:
            terminalreporter.write_line(_not_stored(self._recorder), red=True)

    def pytest_unconfigure(self) -> None:
        """Closes the store when the session ended before its finish."""
        self._live.close()
        self._life.close()


def _missing(planned: frozenset[str], outcomes: Mapping[str, str]) -> int:
    """How many results a run still lacks."""
    return sum(outcomes.get(key) != "passed" for key in planned)


def _worker(report: Any) -> str:
    node = getattr(report, "node", None)
    return "" if node is None else str(node.gateway.id)


def _not_stored(recorder: Any) -> str:
    dropped = f" and {recorder.dropped} blocks of samples" if recorder.dropped else ""
    return (
        f"kitt: {recorder.waiting} records{dropped} could not be stored in {recorder.where}: {recorder.trouble}. "
        "Make room, then measure again what is missing with --kitt-resume"
    )

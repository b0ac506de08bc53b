"""Does a cell stay on one worker, whichever worker dies, and when? xdist's own controller against simulated workers.

Here xdist's ``DSession`` and ``WorkerController`` are the real ones. Simulated are the workers, as xdist's remote.py is
written, the pipes between them, and the time.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_kitt.scheduling import CellScheduling, cells_to_workers, conflict

pytest.importorskip("xdist")

import xdist.dsession
from xdist.dsession import DSession
from xdist.workermanage import Marker, WorkerController

SHUTDOWN = -1
FINISHED = {"exitstatus": 0, "shouldfail": False, "shouldstop": False}


@dataclasses.dataclass(slots=True)
class Plan:
    """What happens in one simulated session.

    Attributes:
        cells: by name, how long each of its items runs, in seconds; a name with a dot is a file of items without cell.
        workers: as ``-n``.
        death: chance that a worker dies, at each point where it could.
        max_deaths: no more die.
        latency_s: longest time that an event, a command, a start or a collection takes.
        restarts: as ``--max-worker-restart``; None for any number.
        repeat: a plugin wants crashed items again, once each.
        collects: what each worker collects, by its number; the others collect all, None ends before it has.
        fates: what items do to their worker: kill it before they "begin", or let it "exit" in an orderly way.

    """

    cells: dict[str, list[float]]
    workers: int
    seed: int = 0
    death: float = 0.0
    max_deaths: int = 0
    latency_s: float = 0.0
    restarts: int | None = None
    repeat: bool = False
    collects: dict[int, list[str] | None] = dataclasses.field(default_factory=dict)
    fates: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """Node ids: cells take turns in files, as where files come before parameters."""
        longest = max(map(len, self.cells.values()), default=0)
        return [
            f"{name}::test_{n}" if "." in name else f"test_a.py::test_{n}[{name}]"
            for n in range(longest)
            for name, items in self.cells.items()
            if n < len(items)
        ]

    def cell_of(self, nodeid: str) -> str | None:
        """The cell in an id."""
        return nodeid.partition("[")[2].rstrip("]") or None

    def group_of(self, nodeid: str) -> str:
        """The cell or the file."""
        return self.cell_of(nodeid) or nodeid.partition("::")[0]

    def demand(self, cell: str) -> float:
        """The bigger, the longer."""
        return sum(self.cells[cell])


class Session:
    """xdist's controller and its simulated workers, in simulated time."""

    def __init__(self, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan, self.ids, self.random = plan, plan.ids, random.Random(plan.seed)
        left = {name: deque(items) for name, items in plan.cells.items()}
        self.duration_s = [left[plan.group_of(nodeid)].popleft() for nodeid in self.ids]
        self.now_s, self.deaths = 0.0, 0
        self.processes: list[Process] = []
        self.crashed: list[str] = []
        self.handled: list[str] = []
        self.refused: list[str] = []
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self._events: deque[Any] = deque()
        self.config = self._config()
        self.scheduling = CellScheduling(
            self.config,
            lambda *_: None,
            cell_of=plan.cell_of,
            demand=plan.demand,
        )
        monkeypatch.setattr(xdist.dsession, "NodeManager", lambda _: self)
        self.specs, self.testrunuid, self.group = [SimpleNamespace(id=None) for _ in range(plan.workers)], "uid", self

    def run(self) -> Session:
        """From the start of xdist's session to its end."""
        controller = DSession(self.config)
        controller.queue = SimpleNamespace(put=self._events.append, get=self._next_event)
        controller.pytest_sessionstart(SimpleNamespace(testscollected=0))
        controller.pytest_runtestloop()
        assert all(node.shutting_down for node in self.scheduling.nodes)
        return self

    def at(self, when_s: float, what: Callable[[], object]) -> None:
        """Does something when its time has come; things of one moment keep their order."""
        heapq.heappush(self._agenda, (when_s, next(self._serial), what))

    def latency_s(self) -> float:
        """How long the next thing takes."""
        return self.random.random() * self.plan.latency_s

    def _next_event(self, timeout: float) -> Any:
        assert timeout
        while not self._events:
            assert self._agenda, "the session hangs"
            self.now_s, _, what = heapq.heappop(self._agenda)
            what()
        return self._events.popleft()

    # -- what xdist's NodeManager does

    def allocate_id(self, spec: Any) -> None:
        """A name for the next worker."""
        spec.id = f"gw{len(self.processes)}"

    def setup_nodes(self, putevent: Callable[[Any], None]) -> list[WorkerController]:
        """The first workers."""
        return [self.setup_node(spec, putevent) for spec in self.specs]

    def setup_node(self, spec: Any, putevent: Callable[[Any], None]) -> WorkerController:
        """A worker and its process."""
        self.allocate_id(spec)
        gateway = SimpleNamespace(id=spec.id, spec=spec)
        node = WorkerController(self, gateway, self.config, putevent)
        node.channel = Process(self, node)
        return node

    # -- what xdist needs of pytest

    def _config(self) -> Any:
        values = {"maxfail": 0, "dist": "load", "tx": ["popen"] * self.plan.workers}
        restarts = None if self.plan.restarts is None else str(self.plan.restarts)
        plugins = SimpleNamespace(register=self._register, getplugin=lambda _: None)
        option = SimpleNamespace(debug=False, maxworkerrestart=restarts, numprocesses=None, verbose=0)
        return SimpleNamespace(
            getvalue=values.get, getoption=values.get, option=option, pluginmanager=plugins, hook=Hooks(self)
        )

    def _register(self, plugin: Any) -> None:
        if isinstance(plugin, CellScheduling):
            self.config.hook.pytest_runtest_logstart = lambda nodeid, **_: plugin.pytest_runtest_logstart(nodeid)


class Hooks:
    """pytest's hooks: what crashed and what was refused is noted, the rest goes nowhere."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda **_: None

    def pytest_xdist_make_scheduler(self, **_: object) -> CellScheduling:
        """The scheduler under test."""
        return self._session.scheduling

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A worker crashed in an item, says xdist."""
        if report.outcome == "failed":
            self._session.crashed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """The session is refused."""
        self._session.refused.append(str(report.longrepr))

    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport, sched: CellScheduling) -> None:
        """What pytest-rerunfailures does."""
        self._session.handled.append(crashitem)
        if self._session.plan.repeat and self._session.handled.count(crashitem) == 1:
            sched.mark_test_pending(crashitem)
            report.outcome = "rerun"  # type: ignore[assignment]


class Process:
    """A worker's process and the two pipes to it."""

    def __init__(self, session: Session, node: WorkerController) -> None:
        self.session, self.node = session, node
        self.number = len(session.processes)
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.alive, self.died, self._parked = True, False, False
        self._queue: deque[int] = deque()
        self._free_s = [0.0, 0.0]  # when each pipe is free again: things in a pipe keep their order
        self._life = self._live()
        session.processes.append(self)
        session.at(session.latency_s() + session.now_s, self._step)

    def _live(self) -> Generator[float | None, None, None]:
        self._emit("workerready", workerinfo={})
        yield self.session.latency_s()
        ids = self.session.plan.collects.get(self.number, self.session.ids)
        if ids is None:
            self._emit("workerfinished", workeroutput={**FINISHED, "exitstatus": 4})
            return
        self._emit("collectionfinish", topdir="", ids=list(ids))
        yield 0.0
        following = yield from self._get()
        while following != SHUTDOWN:
            item, following = following, (yield from self._get())
            yield 0.0
            fate = self.session.plan.fates.get(self.session.ids[item])
            if fate == "begin":
                self._die()
                return
            self._emit("logstart", nodeid=self.session.ids[item], location=("", 0, ""))
            self.begun.append(item)
            if fate == "exit":
                self._emit("workerfinished", workeroutput={**FINISHED, "exitstatus": 7})
                return
            yield self.session.duration_s[item]
            self.ended.append(item)
            self._emit("runtest_protocol_complete", item_index=item, duration=self.session.duration_s[item])
            yield 0.0
        self._emit("workerfinished", workeroutput=FINISHED)

    def _get(self) -> Generator[None, None, int]:
        while not self._queue:
            yield None
        return self._queue.popleft()

    def _step(self) -> None:
        if not self.alive or self._dies():
            return
        delay_s = next(self._life, SHUTDOWN)
        self._parked = delay_s is None
        if delay_s == SHUTDOWN:
            self.alive = False
        elif delay_s is not None:
            self.session.at(self.session.now_s + delay_s, self._step)
        else:
            self.session.at(self.session.now_s + self.session.latency_s(), lambda: self._parked and self._dies())

    def _dies(self) -> bool:
        session = self.session
        if self.died or session.deaths >= session.plan.max_deaths or session.random.random() >= session.plan.death:
            return False
        self._die()
        return True

    def _die(self) -> None:
        self.alive, self.died, self._parked = False, True, False
        self.session.deaths += 1
        self._through(0, lambda: self.node.process_from_remote(Marker.END))

    def _emit(self, name: str, **kwargs: object) -> None:
        self._through(0, lambda: self.node.process_from_remote((name, kwargs)))

    def _through(self, pipe: int, what: Callable[[], object]) -> None:
        session = self.session
        self._free_s[pipe] = max(self._free_s[pipe], session.now_s + session.latency_s())
        session.at(self._free_s[pipe], what)

    # -- what execnet's channel does

    def send(self, command: tuple[str, dict[str, Any]]) -> None:
        """To the worker; whether writing to a dead one fails depends on the moment."""
        if not self.alive and self.session.random.random() < 0.5:
            raise OSError("cannot send")
        self._through(1, lambda: self._receive(*command))

    def _receive(self, name: str, kwargs: dict[str, Any]) -> None:
        assert name in {"runtests", "shutdown"}
        self._queue += kwargs.get("indices", [SHUTDOWN])
        if self._parked:
            self._parked = False
            self._step()

    def _getremoteerror(self) -> None:
        return None


def check(session: Session) -> None:
    """What holds for every session, whoever died."""
    plan, ids = session.plan, session.ids
    begun = [item for process in session.processes for item in process.begun]
    ended = [item for process in session.processes for item in process.ended]
    crashed = [ids.index(nodeid) for nodeid in session.crashed]
    assert len(begun) == len(set(begun)) or plan.repeat, "something ran twice"
    assert len(crashed) == len(set(crashed)), "something was reported twice"
    if session.scheduling.collection_is_completed:
        left = [ids.index(nodeid) for nodeid in session.scheduling.left]
        assert sorted(ended + crashed + left) == list(range(len(ids))), "something was lost"
    assert set(begun) - set(ended) <= set(crashed), "a crash was not reported"
    assert 2 * len(set(crashed) - set(begun)) <= session.deaths, "reported as crashed, but never tried twice"
    pieces: dict[str, list[Process]] = {}
    for process in session.processes:
        runs = [(cell, list(run)) for cell, run in itertools.groupby(process.begun, lambda i: plan.group_of(ids[i]))]
        assert len(runs) == len(dict(runs)), "a cell was begun twice on one worker"
        for cell, run in runs:
            assert run == sorted(run), "not in the order of collection"
            pieces.setdefault(cell, []).append(process)
    for cell, processes in pieces.items():
        processes.sort(key=lambda process: process.number)
        for before, after in itertools.pairwise(processes):
            assert before.died, "a cell has two workers"
            assert plan.group_of(ids[before.begun[-1]]) == cell, "a cell was left before its end"
            assert plan.group_of(ids[after.begun[0]]) == cell, "something came before the rest of a cell"


def some_plan(seed: int, **kwargs: Any) -> Plan:
    """Any number of cells of any size on any number of workers."""
    rng = random.Random(seed)
    cells = {f"c{n}": [rng.random() for _ in range(rng.randint(1, 5))] for n in range(rng.randint(1, 8))}
    files = {f"test_{n}.py": [rng.random() for _ in range(rng.randint(1, 3))] for n in range(rng.randint(0, 2))}
    return Plan(cells | files, rng.randint(1, 5), seed=seed, latency_s=rng.choice((0.0, 0.1, 2.0)), **kwargs)


@pytest.mark.parametrize("block", range(4))
def test_whoever_dies_whenever(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, runs twice or hangs, and a cell has one start and one more for each worker that died in it."""
    deaths = 0
    for seed in range(block * 500, block * 500 + 500):
        plan = some_plan(seed, death=(0.0, 0.01, 0.05, 0.3)[seed % 4], max_deaths=seed % 7)
        session = Session(plan, monkeypatch).run()
        check(session)
        assert not session.scheduling.left
        assert not session.refused
        deaths += session.deaths
    assert deaths > 500


@pytest.mark.parametrize("deaths", range(5))
def test_four_workers_eight_cells(deaths: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 cells on 4 workers, and up to 4 deaths."""
    for seed in range(50):
        plan = Plan({f"c{n}": [1.0] * 4 for n in range(8)}, 4, seed, death=0.02, max_deaths=deaths, latency_s=0.5)
        session = Session(plan, monkeypatch).run()
        check(session)
        assert not session.scheduling.left


def test_one_death_at_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single death no item is reported that had not begun, and all others end."""
    for seed in range(300):
        session = Session(some_plan(seed, death=0.05, max_deaths=1), monkeypatch).run()
        check(session)
        began = {session.ids[item] for process in session.processes for item in process.begun}
        assert set(session.crashed) <= began


@pytest.mark.parametrize("restarts", [0, 1])
def test_without_replacement(restarts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When xdist replaces no more, workers finish what they have, and what is left is known."""
    left = 0
    for seed in range(300):
        session = Session(some_plan(seed, death=0.05, max_deaths=3, restarts=restarts), monkeypatch).run()
        check(session)
        left += len(session.scheduling.left)
    assert left


def test_a_plugin_repeats_what_crashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mark_test_pending``: the item runs again before the rest of its cell."""
    for seed in range(300):
        plan = Plan({f"c{n}": [1.0] * 3 for n in range(4)}, 2, seed, 0.05, 2, latency_s=0.1, repeat=True)
        session = Session(plan, monkeypatch).run()
        check(session)
        begun = Counter(session.ids[item] for process in session.processes for item in process.begun)
        assert Counter(session.handled) <= begun
        assert not session.scheduling.left


def test_what_kills_each_worker_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an item is tried twice, then it counts as crashed, and the session goes on."""
    deadly = "test_a.py::test_1[c0]"
    session = Session(Plan({"c0": [1.0] * 4, "c1": [1.0] * 2}, 1, fates={deadly: "begin"}), monkeypatch).run()
    assert (session.crashed, session.deaths, session.scheduling.left) == ([deadly], 2, [])
    check(session)


def test_a_worker_that_leaves_items_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """``pytest.exit`` with a code of its own ends the session with an error; what another worker has is finished."""
    plan = Plan({"a": [1.0] * 4, "b": [1.0] * 3, "c": [1.0]}, 2, fates={"test_a.py::test_1[a]": "exit"})
    session = Session(plan, monkeypatch).run()
    assert session.refused == ["worker gw0 ended early with exit status 7: run without -n to see why"]
    assert starts(session) == [["a"], ["b"]]
    assert len(session.processes[1].ended) == 3


def starts(session: Session) -> list[list[str]]:
    """The groups of each worker, in their order."""
    group_of = session.plan.group_of
    return [
        [group for group, _ in itertools.groupby(process.begun, lambda item: group_of(session.ids[item]))]
        for process in session.processes
    ]


def test_the_biggest_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """By demand, equal ones as collected; items without a cell come last, file by file."""
    cells = {"test_z.py": [9.0, 9.0], "small": [1.0, 1.0], "big": [3.0, 3.0], "small2": [1.0, 1.0], "test_a.py": [9.0]}
    session = Session(Plan(cells, 1), monkeypatch).run()
    assert starts(session) == [["big", "small", "small2", "test_z.py", "test_a.py"]]


def test_what_follows_goes_to_the_worker_with_the_smallest_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of one item are bound in pairs at once: the biggest with the smallest."""
    session = Session(Plan({f"c{n}": [float(n)] for n in (4, 3, 2, 1)}, 2), monkeypatch).run()
    assert starts(session) == [["c4", "c1"], ["c3", "c2"]]


def test_a_cell_is_bound_as_late_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes to the worker whose last item begins first, however much or little others have begun."""
    session = Session(Plan({"a": [0.5, 5.0, 5.0], "b": [1.0] * 3, "c": [1.0]}, 2), monkeypatch).run()
    assert starts(session) == [["a"], ["b", "c"]]


@pytest.mark.parametrize("cells", [{}, {"a": [1.0]}, {"a": [1.0, 1.0], "b": [1.0]}])
def test_more_workers_than_cells(cells: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle workers end; no items at all end all of them."""
    session = Session(Plan(cells, 4), monkeypatch).run()
    check(session)
    assert not session.scheduling.left
    assert sum(map(bool, starts(session))) == len(cells)


@pytest.mark.parametrize("number", [0, 1])
def test_different_collections(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so in xdist's words, nothing runs, and all workers end."""
    session = Session(Plan({"a": [1.0] * 3}, 2, collects={number: ["test_other.py::test_b"]}), monkeypatch).run()
    assert "Different tests were collected between gw0 and gw1" in session.refused[0]
    assert not any(process.begun for process in session.processes)


def test_a_replacement_that_collects_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session ends with that error; what other workers have is finished."""
    plan = Plan(
        {"a": [1.0] * 9, "b": [1.0] * 9}, 2, 5, death=0.1, max_deaths=1, collects={2: ["test_other.py::test_b"]}
    )
    session = Session(plan, monkeypatch).run()
    assert len(session.processes) == 3
    assert "Different tests were collected" in session.refused[0]
    check(session)


def test_a_worker_that_ends_before_it_has_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A usage error on one worker ends the session with an error, where xdist would wait for ever."""
    session = Session(Plan({"a": [1.0] * 3}, 2, collects={1: None}), monkeypatch).run()
    assert session.refused == ["worker gw1 ended early with exit status 4: run without -n to see why"]
    assert session.scheduling.left == session.ids


def list_scheduling_s(sizes_s: Sequence[float], workers: int) -> float:
    """How long the longest-first rule takes when workers need no look-ahead."""
    busy_s = [0.0] * workers
    for size_s in sorted(sizes_s, reverse=True):
        busy_s[busy_s.index(min(busy_s))] += size_s
    return max(busy_s)


SIZES = {
    "equal": [[10.0] * 6] * 8,
    "mixed": [[10.0] * n for n in (12, 9, 8, 6, 5, 4, 2, 2)],
    "one long item": [[10.0] * 3 + [30.0], *[[10.0] * 6] * 5, *[[10.0] * 2] * 2],
    "single items": [[10.0 * n] for n in (12, 9, 8, 6, 5, 4, 2, 2)],
}


@pytest.mark.parametrize("name", SIZES)
def test_workers_are_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 cells on 4 workers take no longer than list scheduling may, and the longest item."""
    cells = SIZES[name]
    session = Session(Plan({f"c{n}": items for n, items in enumerate(cells)}, 4), monkeypatch).run()
    sizes_s = [sum(items) for items in cells]
    used = sum(sizes_s) / (4 * session.now_s)
    print(f"{name}: {session.now_s:.0f} s, {list_scheduling_s(sizes_s, 4):.0f} s without look-ahead, {used:.0%} used")
    assert_within_bound(session, cells, 4)
    assert used >= {"equal": 1.0, "mixed": 0.9, "one long item": 0.8, "single items": 0.85}[name]


def assert_within_bound(session: Session, cells: Sequence[Sequence[float]], workers: int) -> None:
    """Graham's bound, and the longest item, which is what the look-ahead costs."""
    sizes_s = [sum(items) for items in cells]
    graham_s = sum(sizes_s) / workers + (1 - 1 / workers) * max(sizes_s)
    assert session.now_s <= graham_s + max(map(max, cells)) + 1e-6


def test_no_schedule_is_longer_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any cells, any workers."""
    for seed in range(300):
        rng = random.Random(seed)
        cells = [[rng.expovariate(1) for _ in range(rng.randint(1, 6))] for _ in range(rng.randint(1, 12))]
        workers = rng.randint(1, 5)
        session = Session(Plan({f"c{n}": items for n, items in enumerate(cells)}, workers), monkeypatch).run()
        assert_within_bound(session, cells, workers)


def config(dist: str, tx: Sequence[str] = ("popen",)) -> Any:
    """Options of pytest as xdist has them."""
    option = SimpleNamespace(dist=dist, tx=list(tx))
    return SimpleNamespace(option=option, getoption=vars(option).get)


@pytest.mark.parametrize("dist", ["each", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_what_would_split_cells_is_refused(dist: str) -> None:
    """One sentence: what, why, and what to do."""
    assert conflict(config(dist)) == (
        f"--dist={dist} would start the engine of one cell on several workers: leave --dist out, "
        "-n alone keeps each cell on one worker"
    )
    assert cells_to_workers(config(dist), None, cell_of=str, demand=float) is None


@pytest.mark.parametrize(
    "fine", [config("no", ()), config("load"), config("loadscope", ()), SimpleNamespace(option=SimpleNamespace())]
)
def test_what_splits_nothing_is_fine(fine: Any) -> None:
    """No workers, -n alone, and no xdist at all."""
    assert conflict(fine) == ""

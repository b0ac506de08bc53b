"""Which worker of pytest-xdist runs what? Whole cells, the biggest first: an engine starts once for any ``-n``."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler.protocol import Scheduling
    from xdist.workermanage import WorkerController

_ORDERLY = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


def conflict(config: pytest.Config) -> str:
    """Why ``--dist`` cannot be obeyed, in one sentence for a UserError; empty if it can, or xdist is not in use."""
    dist = getattr(config.option, "dist", "no")
    if dist in {"no", "load"} or not config.option.tx:
        return ""
    return (
        f"--dist={dist} would start the engine of one cell on several workers: leave --dist out, "
        "-n alone keeps each cell on one worker"
    )


def cells_to_workers(
    config: pytest.Config,
    log: Producer,
    *,
    cell_of: Callable[[str], str | None],
    demand: Callable[[str], float],
) -> Scheduling | None:
    """The scheduler for the hook ``pytest_xdist_make_scheduler``; None for every ``--dist`` but that of ``-n``."""
    if config.getoption("dist") != "load":
        return None
    return CellScheduling(config, log, cell_of=cell_of, demand=demand)


@dataclasses.dataclass(slots=True)
class _Worker:
    collection: list[str] | None = None
    pending: list[int] = dataclasses.field(default_factory=list)


class CellScheduling:
    """Deals whole cells to xdist's workers, and what a dead one left to its replacement: xdist's ``Scheduling``.

    A worker begins an item when it knows the next one, on which the item's teardown depends. So just before the last
    item of a cell begins, and no sooner, its worker is told of its next cell, or to shut down when none is left. That
    cell is bound for as long as one item runs, even if another worker has nothing to do meanwhile. Stealing it back is
    no way out: xdist's "steal" reaches what a worker queues, not the one item that it looks ahead to, and a cell of
    which one item stays has two starts. So a session takes at most the bound of list scheduling and the longest item.

    Args:
        config: the controller's.
        log: xdist's, shown by ``--debug``.
        cell_of: the cell of a node id; None puts the item into the group of its file.
        demand: how big a cell is, in GPUs or in items; cells of one size keep the order of collection.

    """

    def __init__(
        self,
        config: pytest.Config,
        log: Producer,
        *,
        cell_of: Callable[[str], str | None],
        demand: Callable[[str], float],
    ) -> None:
        self.config = config
        self._log, self._cell_of, self._demand = log, cell_of, demand
        self._coming = _workers_asked_for(config)  # workers that are to collect yet, replacements included
        self._workers: dict[WorkerController, _Worker] = {}
        self._collection: list[str] = []  # what the first to collect has
        self._collector = ""  # its name
        self._dealt = False
        self._group: list[tuple[str | None, str]] = []  # by item: its cell, or the file of an item that has none
        self._count: Counter[tuple[str | None, str]] = Counter()  # items by group
        self._queue: list[list[int]] = []  # what nobody was told of: the items of a group, or the rest of them
        self._begun: set[str] = set()
        self._suspects: set[int] = set()
        self._refused = False
        config.pluginmanager.register(self)  # to hear which items begin

    # -- what xdist asks

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers that are there."""
        return list(self._workers)

    @property
    def collection_is_completed(self) -> bool:
        """Whether items can be dealt: nobody collects any more, or there was a deal already."""
        return self._dealt or self._coming == 0

    @property
    def tests_finished(self) -> bool:
        """Whether the session may end: all items ended, or the session was refused."""
        return self._refused or (self._dealt and not self.has_pending)

    @property
    def has_pending(self) -> bool:
        """Whether an item has not ended."""
        return bool(self._queue) or any(worker.pending for worker in self._workers.values())

    @property
    def left(self) -> list[str]:
        """The items that were not run to their end; there are some after ``-x``, or when workers are not replaced."""
        if not self._dealt:
            return self._collection
        indices = itertools.chain(*self._queue, *(worker.pending for worker in self._workers.values()))
        return [self._collection[index] for index in sorted(indices)]

    # -- what xdist tells

    def add_node(self, node: WorkerController) -> None:
        """A worker has started, and collects."""
        self._workers[node] = _Worker()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker has collected."""
        self._coming -= 1
        self._workers[node].collection = list(collection)
        if not self._collector:
            self._collection, self._collector = list(collection), node.gateway.id

    def schedule(self) -> None:
        """Deals: for the first time when all have collected, then whenever a replacement has."""
        if not self._same_collections():
            return
        if not self._dealt:
            self._group_items()
        self._deal()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """An item begins on some worker."""
        self._begun.add(nodeid)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:  # noqa: ARG002
        """An item has ended."""
        self._workers[node].pending.remove(item_index)
        self._deal()

    def mark_test_pending(self, item: str) -> None:
        """A plugin that repeats tests wants a crashed item to run again: before the rest of its cell."""
        index = self._collection.index(item)
        self._begun.discard(item)
        if self._queue and self._group[self._queue[0][0]] == self._group[index]:
            self._queue[0].insert(0, index)
        else:
            self._queue.insert(0, [index])

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """The answer to "steal", which is never sent."""
        raise NotImplementedError

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has ended or died; returns the item that it died in, and keeps the others for its replacement."""
        worker = self._workers.pop(node)
        status = _exit_status(node)
        if status is None:
            self._coming += worker.collection is not None
            return self._recover(worker.pending)
        if worker.pending or (worker.collection is None and status not in _ORDERLY):
            self._refuse(
                node, f"worker {node.gateway.id} ended early with exit status {status}: run without -n to see why"
            )
        return None

    # -- how it is done

    def _group_items(self) -> None:
        self._dealt = True
        groups: dict[tuple[str | None, str], list[int]] = {}
        for index, nodeid in enumerate(self._collection):
            cell = self._cell_of(nodeid)
            group = (cell, "") if cell is not None else (None, nodeid.partition("::")[0])
            self._group.append(group)
            groups.setdefault(group, []).append(index)
        self._count.update(self._group)
        self._queue = sorted(groups.values(), key=self._turn)

    def _turn(self, items: list[int]) -> tuple[bool, float]:
        """Rests of cells come first, for workers that are coming; then the biggest; what has no cell comes last."""
        return len(items) == self._count[self._group[items[0]]], -self._size(items)

    def _deal(self) -> None:
        """First to those with nothing to do, then to those that need to know what follows their last item.

        The first groups of the queue wait for the workers that are coming: the rest of a cell is for the replacement,
        which is there in seconds, not for a worker whose last item may take an hour.
        """
        for pending, reserved in ((0, 0), (1, self._coming)):
            waiting = [node for node, worker in self._workers.items() if _waits(node, worker, pending)]
            for node in sorted(waiting, key=lambda node: self._size(self._workers[node].pending)):
                self._send_next(node, reserved)

    def _send_next(self, node: WorkerController, reserved: int) -> None:
        if len(self._queue) <= reserved:
            node.shutdown()
            return
        items = self._queue.pop(reserved)
        self._log("cell to worker", self._group[items[0]], node.gateway.id)
        self._workers[node].pending += items
        with contextlib.suppress(OSError):  # it is dead, and xdist is about to say so
            node.send_runtest_some(items)

    def _recover(self, pending: list[int]) -> str | None:
        """Queues what a dead worker was told of; returns the item that it died in."""
        fatal = None
        if pending:
            first = self._collection[pending[0]]
            # an item that did not begin runs again, but only once: what kills workers before it begins, ends here too
            if first in self._begun or pending[0] in self._suspects:
                fatal, pending = first, pending[1:]
            else:
                self._suspects.add(pending[0])
        told = [list(items) for _, items in itertools.groupby(pending, key=self._group.__getitem__)]
        self._queue = sorted(told + self._queue, key=self._turn)
        return fatal

    def _size(self, items: list[int]) -> float:
        cell = self._group[items[0]][0] if items else None
        return 0 if cell is None else self._demand(cell)

    def _same_collections(self) -> bool:
        from xdist.report import report_collection_diff

        for node, worker in self._workers.items():
            if worker.collection not in (None, self._collection):
                why = report_collection_diff(self._collection, worker.collection, self._collector, node.gateway.id)
                self._refuse(node, str(why))
        return not self._refused

    def _refuse(self, node: WorkerController, why: str) -> None:
        """Ends the session with an error; workers finish what they were told of."""
        self._refused = True
        report = pytest.CollectReport(nodeid=node.gateway.id, outcome="failed", longrepr=why, result=[])
        self.config.hook.pytest_collectreport(report=report)


def _workers_asked_for(config: pytest.Config) -> int:
    from xdist import workermanage

    # xdist 3.6 has another name for it
    parse = getattr(workermanage, "parse_tx_spec_config", None) or workermanage.parse_spec_config
    return len(parse(config))


def _waits(node: WorkerController, worker: _Worker, pending: int) -> bool:
    return worker.collection is not None and len(worker.pending) == pending and not node.shutting_down


def _exit_status(node: WorkerController) -> int | None:
    """The exit status of a worker that ended by itself; None for one that xdist replaces: dead, or interrupted."""
    output: dict[str, Any] = getattr(node, "workeroutput", {})
    status = output.get("exitstatus")
    return None if status == pytest.ExitCode.INTERRUPTED else status

"""Who may use this device now? Who holds its lock: one per GPU, one for the machine, one per server, one per port.

A timed load on a GPU or against a server holds the machine's lock with others, one on the CPU holds it alone. Whoever
waits has a ticket, and takes all that it needs at once or nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_kitt.engine import orphans, turn
from pytest_kitt.engine.lock import Lock, take, text
from pytest_kitt.engine.orphans import shown
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.hardware import gpus, identity

_FOLDER = Path("/tmp/kitt-leases")  # noqa: S108 - shared by all users on purpose; lock.py minds what lies there
_POLL_S = 0.05
_HOST = "127.0.0.1"
_PORTS = range(20000, 32768)  # below those that the kernel gives to outgoing connections
_MACHINE = "machine"
_MAX_NAME = 150
_DEVICE = re.compile(r"((?:gpu|server)-[\w.-]+)\.lock")


@dataclass(frozen=True, slots=True)
class Need:
    """What a cell wants to itself while it runs.

    Attributes:
        gpus: how many GPUs.
        machine: this machine: a timed load of an engine that runs on the CPU.
        server: a server that already runs, as host:port.

    """

    gpus: int = 0
    machine: bool = False
    server: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds or waits, as others are told; the process and its user are added.

    Attributes:
        run: id of the run.
        cell: id of the cell.
        mark: what the processes of this lease, and no others, carry in their environment.

    """

    run: str
    cell: str
    mark: str


@dataclass(frozen=True, slots=True)
class Lease:
    """What is held.

    Attributes:
        gpus: ids as in the inventory, for CUDA_VISIBLE_DEVICES.

    """

    gpus: tuple[str, ...] = ()
    _locks: tuple[Lock, ...] = field(default=(), repr=False, compare=False)
    _holder: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def note(self, pid: int) -> None:
        """Adds the engine, leader of a session of its own: so other users see what of it outlives its holder."""
        engine = {"pid": pid, "start_time": identity.start_time(pid)}
        for lock in self._locks:
            if not lock.shared:
                lock.write({**self._holder, "engine": engine})


@contextlib.contextmanager
def held(
    need: Need,
    *,
    inventory: Sequence[str],
    folder: Path,
    holder: Holder,
    on_wait: Callable[[str], None] = lambda _: None,
    on_poll: Callable[[], None] = lambda: None,
    timeout_s: float | None = None,
) -> Iterator[Lease]:
    """What a cell needs, to itself, as long as the context lasts; first come, first served.

    ``on_wait`` is told who is waited for, when that begins and when it changes; ``on_poll`` is called again and again
    meanwhile. UserError when the inventory is too
    small or the folder unusable; EngineStartError (lease) when ``timeout_s`` is over, or when a dead holder's
    processes cannot be ended.
    """
    if need == Need():
        yield Lease()
        return
    claim = _claim(need, inventory, holder)
    record = {**dataclasses.asdict(holder), **identity.of_this_process(), "user": identity.user()}
    with contextlib.ExitStack() as life:
        with turn.drawn(folder, record, wants=claim.names, alone=need.machine) as ticket:
            patience = _Patience(holder.cell, on_wait, timeout_s)
            while not (locks := _collected(claim, ticket, life)):
                on_poll()
                patience.wait(_sentence(claim, ticket))
            _settle(locks, record)
        yield Lease(tuple(claim.gpus[name] for name in locks if name in claim.gpus), tuple(locks.values()), record)


@contextlib.contextmanager
def port(folder: Path, *, first: int = 0) -> Iterator[int]:
    """A free TCP port on 127.0.0.1 that no other session of ours is given meanwhile; ``first`` if that is free.

    Else not always the same: sessions that share no folder of locks would all take it, and meet while their engines
    start.
    """
    others = random.sample(_PORTS, len(_PORTS))
    for number in (first, *others) if first else others:
        lock = take(folder / f"port-{number}.lock")
        if lock is None:
            continue
        with lock:
            if _is_free(number):
                yield number
                return
    raise EngineStartError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free on {_HOST}", kind="port")


def folder() -> Path:
    """Where the locks lie: KITT_LEASES, else a folder in /tmp, for all users; made if need be, else a UserError."""
    given = os.environ.get("KITT_LEASES", "").strip()
    path = Path(given).expanduser().absolute() if given else _FOLDER
    try:
        path.mkdir(parents=bool(given))
        path.chmod(0o1777)  # all may make files, nobody may remove another's
    except FileExistsError as error:
        if not path.is_dir():
            raise UserError(f"{path} is no folder: remove it, or name another with KITT_LEASES") from error
    except OSError as error:
        raise UserError(
            f"the folder for leases, {path}, cannot be made: {error.strerror}; name another with KITT_LEASES"
        ) from error
    return path


@dataclass(frozen=True, slots=True)
class _Claim:
    """A need in names of locks.

    Attributes:
        need: what is wanted.
        gpus: locks of which ``need.gpus`` are wanted, with the ids of their GPUs.
        server: lock of the server, if one is wanted.

    """

    need: Need
    gpus: Mapping[str, str]
    server: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """All that may be taken, but for the machine."""
        return frozenset((*self.gpus, *self.server))


def _claim(need: Need, inventory: Sequence[str], holder: Holder) -> _Claim:
    found: dict[str, str] = {}
    for gpu, device in gpus.devices(inventory if need.gpus else ()).items():
        found.setdefault(_name("gpu", device), gpu)
    if need.gpus > len(found):
        raise UserError(
            f"{holder.cell} needs {_count(need.gpus)}, but there {'is' if len(found) == 1 else 'are'} {len(found)} "
            f"({', '.join(found.values()) or 'none found'}): name more with --kitt-gpus or CUDA_VISIBLE_DEVICES, "
            "or ask for fewer"
        )
    return _Claim(need, found, (_name("server", need.server.casefold()),) if need.server else ())


def _name(kind: str, what: str) -> str:
    return f"{kind}-" + re.sub(r"[^\w.-]", "_", what)[-_MAX_NAME:]


def _collected(claim: _Claim, ticket: turn.Ticket, life: contextlib.ExitStack) -> dict[str, Lock]:
    """All the locks that are needed, by name, kept until ``life`` ends; none if one is held, or others come before."""
    if ticket.ahead():
        return {}
    locks: dict[str, Lock] = {}
    with contextlib.ExitStack() as undo:

        def got(name: str, *, shared: bool = False) -> bool:
            lock = take(ticket.folder / f"{name}.lock", shared=shared)
            if lock is not None:
                locks[name] = undo.enter_context(lock)
            return lock is not None

        if not got(_MACHINE, shared=not claim.need.machine):
            return {}
        whole = {*claim.server}
        if claim.need.machine:
            # whose device it was held the machine too: these are free, but a dead one's engine may still use them
            whole |= {*_devices(ticket.folder)} - {*claim.gpus}
        if not all(got(name) for name in sorted(whole)):
            return {}
        missing = claim.need.gpus
        for name in claim.gpus:
            if missing and got(name):
                missing -= 1
        if missing:
            return {}
        life.enter_context(undo.pop_all())
    return locks


def _settle(locks: Mapping[str, Lock], record: Mapping[str, Any]) -> None:
    """Ends what dead holders left, and writes who holds now."""
    for name, lock in locks.items():
        if left_by := lock.read():
            orphans.end(left_by, device=_label(name))
        if lock.shared:
            lock.empty()
        else:
            lock.write(record)


class _Patience:
    """Tells who is waited for, and for how long yet."""

    def __init__(self, cell: str, on_wait: Callable[[str], None], timeout_s: float | None) -> None:
        self._cell, self._on_wait, self._timeout_s = cell, on_wait, timeout_s
        self._since = time.monotonic()
        self._told = ""

    def wait(self, sentence: str) -> None:
        if self._timeout_s is not None and time.monotonic() - self._since > self._timeout_s:
            raise EngineStartError(f"{self._cell} gave up after {self._timeout_s:g} s of {sentence}", kind="lease")
        if sentence != self._told:
            self._told = sentence
            self._on_wait(sentence)
        time.sleep(_POLL_S)


def _sentence(claim: _Claim, ticket: turn.Ticket) -> str:
    """What is waited for, who holds it and who comes before."""
    holders: dict[str, list[str]] = {}
    names = _devices(ticket.folder) if claim.need.machine else sorted(claim.names)
    for name in (_MACHINE, *names):
        record = text(ticket.folder / f"{name}.lock")
        if record and (identity.is_alive(record) or not identity.is_of_this_host(record)):
            holders.setdefault(_who(record), []).append(_label(name, claim.gpus))
    said = [f"{who} holds {', '.join(labels)}" for who, labels in holders.items()]
    said += [f"{_who(record)} comes before" for record in ticket.ahead()]
    return f"waiting for {_wanted(claim)}: {'; '.join(said) or 'somebody holds it'}"


def _wanted(claim: _Claim) -> str:
    if claim.need.machine:
        return "this machine"
    wanted = [f"{_count(claim.need.gpus)} of {len(claim.gpus)}"] if claim.need.gpus else []
    return " and ".join([*wanted, *([claim.need.server] if claim.need.server else [])])


def _count(number: int) -> str:
    return "1 GPU" if number == 1 else f"{number} GPUs"


def _who(record: Mapping[str, Any]) -> str:
    return f"{shown(record, 'cell')} ({shown(record, 'user')}, pid {shown(record, 'pid')})"


def _label(name: str, ids: Mapping[str, str] | None = None) -> str:
    if name == _MACHINE:
        return "this machine"
    kind, _, what = name.partition("-")
    return f"GPU {(ids or {}).get(name, what.removeprefix('GPU-'))}" if kind == "gpu" else f"server {what}"


def _devices(folder: Path) -> list[str]:
    """The names of all locks of GPUs and servers that were ever taken here."""
    names = (_DEVICE.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(name[1] for name in names if name)


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((_HOST, number))
        except OSError:
            return False
    return True

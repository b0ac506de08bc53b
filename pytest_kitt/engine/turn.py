"""Whose turn is it? First come, first served, among those who want something of the same.

A ticket is a numbered file, and whoever waits holds the lock on it: a ticket that nobody holds is a dead one's. Numbers
are drawn one at a time, each above all that lie there. So a number below that of a living ticket is never drawn again,
and whoever comes upon a dead one below his own may remove it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kitt.engine import lock

_NAME = re.compile(r"ticket-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A place in the queue.

    Attributes:
        folder: where the tickets lie.
        number: lower ones came earlier.
        wants: names of what may be taken.
        alone: whether it is all wanted, whatever its name.

    """

    folder: Path
    number: int
    wants: frozenset[str]
    alone: bool

    def ahead(self) -> list[dict[str, Any]]:
        """What those wrote who came earlier, still wait, and want something of the same; in order."""
        found = []
        for number, path in sorted(_tickets(self.folder).items()):
            if number >= self.number:
                break
            record = lock.text(path)
            if not lock.is_held(path):
                with contextlib.suppress(OSError):  # another user's stays
                    path.unlink()
            elif self._competes(record):
                found.append(record)
        return found

    def _competes(self, other: Mapping[str, Any]) -> bool:
        wants = other.get("wants")
        if not isinstance(wants, list):
            return True  # unreadable: it may want anything
        return self.alone or bool(other.get("alone")) or not self.wants.isdisjoint(map(str, wants))


@contextlib.contextmanager
def drawn(folder: Path, record: Mapping[str, Any], *, wants: Collection[str], alone: bool) -> Iterator[Ticket]:
    """A place at the end of the queue, left when the context ends; UserError when the folder is unusable."""
    with contextlib.ExitStack() as stack:
        with lock.wait_for(folder / "queue.lock"):
            number = 1 + max(_tickets(folder), default=0)
            mine = lock.wait_for(folder / f"ticket-{number}")
            stack.callback(_leave, mine)
            mine.write({**record, "wants": sorted(wants), "alone": alone})
        yield Ticket(folder, number, frozenset(wants), alone)


def _leave(ticket: lock.Lock) -> None:
    with ticket, contextlib.suppress(OSError):
        if ticket.is_in_place():
            ticket.path.unlink()


def _tickets(folder: Path) -> dict[int, Path]:
    try:
        names = [_NAME.fullmatch(entry.name) for entry in folder.iterdir()]
    except OSError:
        return {}
    return {int(name[1]): folder / name[0] for name in names if name}

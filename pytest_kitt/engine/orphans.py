"""What did a holder leave running when it was killed? It ends before the device is used again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pytest_kitt.engine import dockerd, reaper
from pytest_kitt.engine.watchdog import kill_marked, marked
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware import identity

_PATIENCE_S = 5.0
_POLL_S = 0.05


def end(holder: Mapping[str, Any], *, device: str) -> None:
    """Kills what carries a dead holder's mark, and removes such containers.

    EngineStartError (lease) names what still runs after some seconds.

    Another user's processes neither show their mark nor can be killed: they are found by the engine that the holder
    noted. Of another boot nothing is left, and of another host (a container's name, for example) nothing is known.
    """
    if not identity.is_of_this_boot(holder):
        return
    deadline = time.monotonic() + _PATIENCE_S
    while left := _left(holder):
        if time.monotonic() > deadline:
            pids = " ".join(map(str, left))
            raise EngineStartError(
                f"{device} is not free: of {shown(holder, 'cell')}, which {shown(holder, 'user')} ran, these processes "
                f"are left and cannot be ended from here: {pids}; end them (sudo kill -9 {pids}), then run again",
                kind="lease",
            )
        time.sleep(_POLL_S)


def shown(holder: Mapping[str, Any], name: str) -> str:
    """A field of what somebody wrote into a lock file, fit for a terminal."""
    return "".join(c for c in str(holder.get(name, "")) if c.isprintable())[:80] or "?"


def _left(holder: Mapping[str, Any]) -> list[int]:
    if identity.is_alive(holder):
        return [int(holder["pid"])]  # the kernel frees a lock a moment before its killed holder is gone
    found: set[int] = set()
    if mark := str(holder.get("mark", "")):
        kill_marked(mark, within_s=_POLL_S)
        if docker := dockerd.nearby():
            reaper.remove_marked(docker, mark)
        found.update(marked(mark))
    if isinstance(engine := holder.get("engine"), dict):
        found.update(identity.session_members(engine))
    return sorted(found)

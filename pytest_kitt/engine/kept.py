"""Which engines did sessions leave running on purpose? One small file for each, in the user's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from pathlib import Path

from pytest_kitt.engine import dockerd, reaper
from pytest_kitt.engine.watchdog import carries
from pytest_kitt.settings import home

_PRIVATE = 0o700


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """An engine that outlives its session.

    Attributes:
        cell: id of the cell that it serves.
        url: where it answers.
        pid: leader of its process group.
        log: file with all that it prints.
        mark: what it carries in its environment: a process with this number but without the mark is another one.
        container: name of its container; empty for a process.
        down: the command that ends it where it is a service of a compose file; empty for any other.
        host: the machine; the user's folder may be on several.

    """

    cell: str
    url: str
    pid: int
    log: str
    mark: str
    container: str = ""
    down: str = ""
    host: str = dataclasses.field(default_factory=socket.gethostname)

    @property
    def stop(self) -> str:
        """The command that ends it, with the children in its group."""
        if self.down:
            return self.down
        return f"docker rm -f {self.container}" if self.container else f"kill -- -{self.pid}"

    @property
    def traces(self) -> list[tuple[str, str]]:
        """What to look at and what to do, by name."""
        if self.container:
            return [("name", self.container), ("log", f"docker logs {self.container}"), ("stop", self.stop)]
        return [("pid", str(self.pid)), ("log", self.log), ("stop", self.stop)]

    @property
    def up(self) -> bool:
        """Whether it still runs, on this machine."""
        if self.host != socket.gethostname():
            return False
        if not self.container:
            return carries(self.pid, self.mark)
        docker = dockerd.nearby()
        with contextlib.suppress(OSError):
            return docker is not None and reaper.is_up(docker, self.container)
        return False


def record(kept: Kept) -> None:
    """Notes an engine for later sessions, and forgets those of this machine that have ended; OSError if it cannot."""
    folder = _folder()
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    for file in folder.glob("*.json"):
        known = _read(file)
        if known is not None and known.host == kept.host and not known.up:
            file.unlink(missing_ok=True)
    (folder / f"{kept.mark}.json").write_text(json.dumps(dataclasses.asdict(kept)), encoding="utf-8")


def living() -> list[Kept]:
    """The engines that earlier sessions left on this machine and that still run."""
    found = (_read(file) for file in sorted(_folder().glob("*.json")))
    return [kept for kept in found if kept is not None and kept.up]


def _folder() -> Path:
    return home() / "kept"


def _read(file: Path) -> Kept | None:
    """What a file says; None when it is none of ours, or is just being written."""
    try:
        return Kept(**json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None

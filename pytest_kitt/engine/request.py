"""What is asked of Docker for a cell? Its command, its ports, its GPUs, and what it sees of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pytest_kitt.cards import RuntimeCard
from pytest_kitt.engine import lease, mounts, reaper
from pytest_kitt.engine.pull import LocalImage
from pytest_kitt.engine.runtime.container import Mount, Request
from pytest_kitt.engine.sibling import Sibling
from pytest_kitt.engine.watchdog import MARK
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware import platform
from pytest_kitt.matrix import Cell
from pytest_kitt.settings import home

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_LOOPBACK, _ANY = "127.0.0.1", "0.0.0.0"  # noqa: S104 - inside a container with a network of its own
_ALL_MAY_WRITE = 0o777


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """How the engine's container is reached.

    Attributes:
        mode: ``host``, a network's name, or ``container:ID`` for the network of the container that pytest runs in.
        bind: address that the engine listens on.
        published: whether its port is published on this machine.

    """

    mode: str
    bind: str
    published: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """Whose the container is, and what they hold.

    Attributes:
        run: id of the run.
        mark: of the cell's engine.
        gpus: ids of the leased GPUs.
        inside: the container that this process runs in, if any.

    """

    run: str
    mark: str
    gpus: tuple[str, ...] = ()
    inside: Sibling | None = None


def network(wanted: str, ours: Sibling | None, *, system: str = sys.platform) -> Network:
    """The network for ``--kitt-network``: the one that pytest itself is in, or one apart."""
    if ours is not None and ours.network == "none":
        raise EngineStartError(
            f"pytest runs in container {ours.id[:12]} without a network (docker run --network=none): no engine in "
            "another container can be reached from there",
            kind="network",
        )
    if wanted == "bridge" and ours is not None and ours.network != "host" and ours.networks:
        return Network(ours.networks[0], _ANY)
    if wanted == "bridge" or system != "linux":  # elsewhere Docker runs in a machine of its own
        return Network("bridge", _ANY, published=True)
    if ours is not None and ours.network != "host":
        return Network(f"container:{ours.id}", _LOOPBACK)
    return Network("host", _LOOPBACK)


@contextlib.contextmanager
def ports(runtime: RuntimeCard, folder: Path) -> Iterator[dict[str, int]]:
    """A free port for each that the engine opens, by name, no other session's meanwhile; ``port`` is the card's own."""
    with contextlib.ExitStack() as life:
        yield {
            name: life.enter_context(lease.port(folder, first=runtime.port if name == "port" else 0))
            for name in ("port", *runtime.ports)
        }


def model(cell: Cell, runtime: RuntimeCard) -> tuple[tuple[Mount, ...], str]:
    """What is mounted of a cell's model, and what the engine is told; a hub id is fetched by the engine itself."""
    return mounts.of_model(Path(cell.model.path), runtime.models) if cell.model.path else ((), cell.model.ref)


def request(
    cell: Cell,
    runtime: RuntimeCard,
    image: LocalImage,
    *,
    argv: tuple[str, ...],
    env: Mapping[str, str],
    seen: tuple[Mount, ...],
    reached: Network,
    port: int,
    owner: Owner,
) -> Request:
    """The container of a cell, as it is to be asked for."""
    host_path: Callable[[str], str] = owner.inside.host_path if owner.inside else str
    seen = (*seen, *_kept_folders(cell.engine, runtime))
    return Request(
        image=image.id,
        command=argv,
        labels=reaper.labels(owner.run, cell.id, owner.mark, owner.inside.id if owner.inside else ""),
        entrypoint=tuple(runtime.entrypoint),
        env={**env, **_tokens(cell), MARK: owner.mark},
        mounts=tuple(dataclasses.replace(mount, host=host_path(mount.host)) for mount in seen),
        network=reached.mode,
        publish=port if reached.published else 0,
        gpus=owner.gpus,
        amd=bool(owner.gpus) and is_amd(),
        shm=runtime.shm,
        ipc=runtime.ipc,
        memory=runtime.memory,
    )


def is_amd() -> bool:
    """Whether the GPUs here are AMD's."""
    return platform.read().vendor == "amd"


def _kept_folders(engine: str, runtime: RuntimeCard) -> tuple[Mount, ...]:
    """Folders of the user's that outlive the container; whoever its user is may write there, and nobody else here."""
    made = []
    for name, inside in runtime.volumes.items():
        folder = home() / "cache" / engine / name
        folder.mkdir(parents=True, exist_ok=True)
        (home() / "cache").chmod(0o700)
        with contextlib.suppress(PermissionError):
            folder.chmod(_ALL_MAY_WRITE)
        made.append(Mount(str(folder.absolute()), inside, writable=True))
    return tuple(made)


def _tokens(cell: Cell) -> dict[str, str]:
    """The hub's token, only for an engine that fetches its model itself."""
    return {} if cell.model.path else {name: os.environ[name] for name in _TOKENS if os.environ.get(name)}

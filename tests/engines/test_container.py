"""Is an engine in a container started as asked, found ready or dead with the right reason, and removed?"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import socket
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import cards, shipped
from pytest_kitt.engine import dockerd, memory, orphans, pull, reaper
from pytest_kitt.engine.base import RunningEngine
from pytest_kitt.engine.runtime.container import EngineContainer
from pytest_kitt.engine.start import Place
from pytest_kitt.engine.start import started as start
from pytest_kitt.errors import EngineStartError
from pytest_kitt.hardware import identity
from pytest_kitt.matrix import build
from pytest_kitt.settings import Settings
from tests.engines.contained import PATIENCE_S, left, llama_card, raw_card, running

pytestmark = pytest.mark.docker


@pytest.fixture
def place(tmp_path: Path, docker_client: Any) -> Iterator[Place]:
    """Where an engine leaves its traces; no container is among them."""
    mark = uuid.uuid4().hex
    yield Place(tmp_path, mark, run="a-run")
    names = left(docker_client, reaper.MARK, mark)
    assert not names, f"containers left behind: {names}"


def wait_for(condition: Callable[[], Any]) -> Any:
    """What a condition says as soon as that is not nothing."""
    deadline = time.monotonic() + PATIENCE_S
    while not (said := condition()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)
    return said


def refused(raw: dict[str, Any], place: Place, **settings: Any) -> EngineStartError:
    """Why an engine did not start."""
    with pytest.raises(EngineStartError) as caught, running(raw, place, **settings):
        pass
    return caught.value


def asked(engine: RunningEngine, path: str) -> Any:
    """What the server in the container says."""
    with engine.access.client() as http:
        return http.get(path).json()


def contained(engine: RunningEngine) -> EngineContainer:
    """The container of an engine."""
    assert isinstance(engine.process, EngineContainer)
    return engine.process


def test_it_answers_and_is_gone_afterwards(place: Place, llama_image: str, docker_client: Any) -> None:
    """Name, labels, image, log, process and mark are those of the session; nothing of it stays."""
    with running(raw_card(), place, image=(("*", llama_image),)) as engine:
        container = docker_client.containers.get(contained(engine).name)
        assert container.name.startswith("kitt-2")
        assert container.labels[reaper.RUN] == "a-run"
        assert container.labels[reaper.CELL] == engine.cell.id
        assert json.loads(container.labels[reaper.OWNER])["pid"] == os.getpid()
        assert engine.image is not None
        assert engine.image.digest == container.attrs["Image"]
        assert asked(engine, "/env")["KITT_MARK"] == place.mark
        assert "no-new-privileges" in container.attrs["HostConfig"]["SecurityOpt"]
        assert container.attrs["HostConfig"]["Init"] is True
        assert engine.pid == container.attrs["State"]["Pid"]
        assert engine.start_s is not None
        assert engine.start_s > 0
        found = memory.memory_of(engine.pid, "rss_sum")
        assert memory.unknown(engine.pid, container=True) == ""
        assert found is not None
        assert found[0] > 1 << 20
        log = contained(engine).log
        wait_for(lambda: "mine listens" in log.read_text())


def test_a_port_on_a_network_of_its_own_is_published_here_only(
    place: Place, llama_image: str, docker_client: Any
) -> None:
    """--kitt-network=bridge: 127.0.0.1 on this machine, any address in the container."""
    with running(raw_card(), place, image=(("*", llama_image),), network="bridge") as engine:
        container = docker_client.containers.get(contained(engine).name)
        ((published,),) = container.attrs["HostConfig"]["PortBindings"].values()
        assert published["HostIp"] == "127.0.0.1"
        assert engine.url == f"http://127.0.0.1:{published['HostPort']}"
        assert asked(engine, "/env")


def test_the_cards_port_is_taken_if_it_is_free(place: Place, llama_image: str) -> None:
    """Else a leased one; further ports have names, in the command and in the environment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        raw = raw_card(port=number, ports=["master"], env={"MASTER": "{master}"})
        with running(raw, place, image=(("*", llama_image),)) as engine:
            assert not engine.url.endswith(f":{number}")
            assert int(asked(engine, "/env")["MASTER"]) not in {number, int(engine.url.rpartition(":")[2])}
    with running(raw, place, image=(("*", llama_image),)) as engine:
        assert engine.url.endswith(f":{number}")


def test_folders_of_the_user_outlive_it(place: Place, llama_image: str, private_home: Path) -> None:
    """A volume of the card is the user's folder, which the engine may write to whoever it is."""
    kept = private_home / "cache" / "mine" / "kernels"
    write = "open('/kernels/compiled', 'w').write('yes')"
    raw = raw_card(volumes={"kernels": "/kernels"})
    raw["runtimes"]["container"]["command"][1] = f"{write}\n{raw['runtimes']['container']['command'][1]}"
    with running(raw, place, image=(("*", llama_image),)):
        assert (kept / "compiled").read_text() == "yes"
    assert (kept / "compiled").exists()
    assert kept.parent.parent.stat().st_mode & 0o077 == 0
    (kept / "compiled").unlink()


@pytest.mark.parametrize(
    "mode, runtime, kind, sentence, tail",
    [
        (
            "exit",
            {},
            "model",
            "ended with exit code 3 before it was ready: it cannot load the model",
            "no such weights",
        ),
        ("hoard", {"memory": "64m"}, "memory", "(SIGKILL) before it was ready: there is not enough memory", "begins"),
        ("serve", {"entrypoint": ["no-such-program"]}, "command", "does not have that program", ""),
    ],
)
def test_why_it_did_not_become_ready(
    place: Place, llama_image: str, mode: str, runtime: dict[str, Any], kind: str, sentence: str, tail: str
) -> None:
    """Class, sentence and the end of the log, long before time is up."""
    error = refused(raw_card(mode, **runtime), place, image=(("*", llama_image),))
    assert error.kind == kind
    assert sentence in str(error).splitlines()[0]
    assert tail in error.log_tail


def test_one_that_is_never_healthy(place: Place, llama_image: str) -> None:
    """Time ends."""
    error = refused(raw_card("never"), place, image=(("*", llama_image),), start_timeout=2.0)
    assert error.kind == "timeout"
    assert "mine begins" in error.log_tail


def test_a_port_that_is_taken(place: Place, llama_image: str) -> None:
    """By a stranger, between our look and the engine's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        raw = raw_card()
        command = raw["runtimes"]["container"]["command"]
        command[command.index("{port}")] = str(taken.getsockname()[1])
        error = refused(raw, place, image=(("*", llama_image),))
    assert error.kind == "port"
    assert "its port is taken" in str(error)


@pytest.mark.parametrize("content", [b"GGUF\3\0\0\0" + b"\xff" * 64, b"PK\3\4" + b"x" * 64], ids=["corrupt", "zip"])
def test_weights_that_are_none(
    place: Place, llama_image: str, tmp_path: Path, private_home: Path, content: bytes
) -> None:
    """The real server says so, and that is understood: broken weights, and a file of another format."""
    llama_card(private_home)
    card = cards.load_engines()["llama_cpp"]
    weights = tmp_path / "models" / "w.gguf"
    weights.parent.mkdir(mode=0o755)
    weights.write_bytes(shipped.TINY_MODEL.read_bytes())
    settings = Settings(runtime="container", model=(str(weights),), image=(("*", llama_image),))
    (cell,) = build(settings, {"llama_cpp": card})
    weights.write_bytes(content)  # after it was looked at, as when a download goes wrong
    with pytest.raises(EngineStartError) as caught, start(cell, card, settings, place):
        pass
    assert caught.value.kind == "model", str(caught.value)
    assert caught.value.log_tail


def test_an_image_that_is_not_here(place: Place) -> None:
    """The sentence holds the commands that bring it."""
    error = refused(raw_card(), place, image=(("*", "kitt-test/none:1"),))
    assert error.kind == "missing"
    for cure in ("docker pull kitt-test/none:1", "kitt engines setup mine", "--kitt-auto-pull"):
        assert cure in str(error)


def test_a_pull_that_is_refused(place: Place) -> None:
    """No registry listens there: told at once, with what Docker says."""
    reference = "127.0.0.1:1/kitt-test/none:1"
    error = refused(raw_card(), place, image=(("*", reference),), auto_pull=True)
    assert error.kind == "network"
    assert f"image {reference} cannot be pulled: the registry cannot be reached" in str(error)


def test_an_image_for_another_architecture(place: Place, docker_client: Any) -> None:
    """Told before anything starts."""
    machine = docker_client.version()["Arch"]
    other = "arm64" if machine == "amd64" else "amd64"
    reference = f"kitt-test/{other}:{uuid.uuid4().hex[:8]}"
    import_image(docker_client, reference, other)
    try:
        error = refused(raw_card(), place, image=(("*", reference),))
    finally:
        docker_client.images.remove(reference)
    assert error.kind == "architecture"
    assert f"is for {other}, and this machine is {machine}" in str(error)


def import_image(client: Any, reference: str, architecture: str) -> None:
    """An empty image for another kind of machine, in the form of ``docker save``."""
    layer = packed({})
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {"config.json": config, "manifest.json": manifest}
    client.images.load(packed({name: json.dumps(said).encode() for name, said in files.items()} | {"layer.tar": layer}))


def packed(files: dict[str, bytes]) -> bytes:
    """A tar."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def test_an_image_is_built_where_it_may_be(docker_client: Any, llama_image: str, tmp_path: Path) -> None:
    """From a Dockerfile and its folder; what is built is told line by line."""
    (tmp_path / "Dockerfile.cpu").write_text(f"FROM {llama_image}\nLABEL kitt-test=built\n")
    reference = f"kitt-test/built:{uuid.uuid4().hex[:8]}"
    said: list[str] = []
    file = tmp_path / "Dockerfile.cpu"
    with pytest.raises(EngineStartError, match=f"docker build -t {reference} -f {file} {tmp_path}"):
        pull.ensured(docker_client, reference, engine="mine", dockerfile=file)
    try:
        found = pull.ensured(docker_client, reference, engine="mine", dockerfile=file, auto_pull=True, say=said.append)
        assert found.digest == docker_client.images.get(reference).id
        assert any("LABEL kitt-test=built" in word for word in said)
    finally:
        docker_client.images.remove(reference)


def test_a_build_that_fails_shows_the_end_of_its_log(docker_client: Any, llama_image: str, tmp_path: Path) -> None:
    """And leaves neither image nor container."""
    fails = '["python3", "-c", "print(\'all is lost\'); raise SystemExit(3)"]'
    (tmp_path / "Dockerfile").write_text(f"FROM {llama_image}\nRUN {fails}\n")
    with pytest.raises(EngineStartError) as caught:
        pull.build(docker_client, "kitt-test/never:1", tmp_path / "Dockerfile")
    assert caught.value.kind == "build"
    assert "returned a non-zero code: 3" in str(caught.value).splitlines()[0]
    assert "all is lost" in caught.value.log_tail
    assert pull.found(docker_client, "kitt-test/never:1") is None


def test_a_docker_without_gpus(place: Place, llama_image: str, docker_client: Any) -> None:
    """Its refusal is understood, and the container that it had created is removed."""
    if "nvidia" in docker_client.info().get("Runtimes", {}):
        pytest.skip("this Docker has GPUs to give")
    error = refused(raw_card(), dataclasses.replace(place, gpus=("0",)), image=(("*", llama_image),))
    assert error.kind == "gpu"
    assert "install the NVIDIA Container Toolkit" in str(error)


def test_one_that_is_killed_is_dead(place: Place, llama_image: str, docker_client: Any) -> None:
    """By somebody, not for want of memory; all that it printed can still be read."""
    with running(raw_card(), place, image=(("*", llama_image),)) as engine:
        docker_client.containers.get(contained(engine).name).kill()
        death = wait_for(engine.health.ailment)
    assert death.kind == "died"
    assert "killed by signal 9 (SIGKILL) after it had been ready: somebody sent it" in str(death)
    assert "mine listens" in death.log_tail


def test_one_that_is_removed_by_somebody_is_dead(place: Place, llama_image: str, docker_client: Any) -> None:
    """The session notices and goes on."""
    with running(raw_card(), place, image=(("*", llama_image),)) as engine:
        docker_client.containers.get(contained(engine).name).remove(force=True)
        assert wait_for(engine.health.ailment).kind == "died"


def test_one_that_stands_still_hangs(place: Place, llama_image: str, docker_client: Any) -> None:
    """It is named, and removed although it cannot hear."""
    with running(raw_card(), place, image=(("*", llama_image),)) as engine:
        docker_client.containers.get(contained(engine).name).pause()
        death = engine.health.diagnosis()
        assert death is not None
        assert death.kind == "hung"
        assert f"its container {contained(engine).name} runs, but" in str(death)


def test_one_that_is_kept_stays(place: Place, llama_image: str, docker_client: Any) -> None:
    """Under a name that no sweep touches, until the printed command is run."""
    with running(raw_card(), place, image=(("*", llama_image),)) as engine:
        assert contained(engine).keep()
        name = contained(engine).name
    try:
        assert name.startswith("kitt-kept-")
        assert docker_client.containers.get(name).status == "running"
    finally:
        docker_client.containers.get(name).remove(force=True)


class Strangers:
    """Containers that are only created, never started, to look at who is removed."""

    def __init__(self, client: Any, image: str) -> None:
        self._client, self._image = client, image
        self._names: list[str] = []

    def one(self, **labels: str) -> str:
        """Its name."""
        name = f"kitt-{uuid.uuid4().hex[:12]}"
        self._client.containers.create(self._image, name=name, labels=labels)
        self._names.append(name)
        return name

    def there(self, name: str) -> bool:
        """Whether it still is."""
        return bool(self._client.containers.list(all=True, filters={"name": f"^/?{name}$"}, ignore_removed=True))

    def remove(self) -> None:
        """All of them."""
        import docker.errors

        for name in self._names:
            with contextlib.suppress(docker.errors.NotFound):
                self._client.containers.get(name).remove(force=True)


@pytest.fixture
def strangers(docker_client: Any, llama_image: str) -> Iterator[Strangers]:
    """Makes containers of others."""
    found = Strangers(docker_client, llama_image)
    yield found
    found.remove()


def owned(mark: str, **changes: Any) -> dict[str, str]:
    """Labels of a session of ours, whose owner is changed."""
    labels = reaper.labels("a-run", "a-cell", mark)
    return {**labels, reaper.OWNER: json.dumps({**json.loads(labels[reaper.OWNER]), **changes})}


def test_only_what_dead_sessions_left_is_swept(strangers: Strangers) -> None:
    """A living owner's, another machine's, another PID namespace's, a stranger's: all stay."""
    mark = uuid.uuid4().hex
    dead = [
        strangers.one(**owned(mark, pid=4_000_000, start_time="1")),
        strangers.one(**owned(mark, start_time="1")),
        strangers.one(**owned(mark, boot_id="of another boot")),
        strangers.one(**owned(mark, container="f" * 64)),
    ]
    alive = [
        strangers.one(),
        strangers.one(**{"org.testcontainers": "true"}),
        strangers.one(**{reaper.MARK: mark}),
        strangers.one(**{reaper.MARK: mark, reaper.OWNER: "no JSON"}),
        strangers.one(**owned(mark)),
        strangers.one(**owned(mark, host="elsewhere", pid=4_000_000)),
        strangers.one(**owned(mark, pid_namespace="pid:[1]", pid=4_000_000)),
    ]
    gone = reaper.sweep(dockerd.address())
    assert not set(alive) & set(gone)
    for name in dead:  # the session of another test may be sweeping too
        wait_for(lambda name=name: not strangers.there(name))  # type: ignore[misc]
    assert [strangers.there(name) for name in alive] == [True] * len(alive)


def test_a_mark_removes_what_carries_it(strangers: Strangers) -> None:
    """Longer marks too, but no mark that only begins alike, and not what is to be spared."""
    mark = uuid.uuid4().hex
    mine, cell, kept, other, foreign = (
        strangers.one(**owned(found)) for found in (mark, f"{mark}.a", f"{mark}.b", f"{mark}x", uuid.uuid4().hex)
    )
    unlabelled = strangers.one()
    assert reaper.remove_marked(dockerd.address(), mark, spare=f"{mark}.b") == 2
    there = {name for name in (mine, cell, kept, other, foreign, unlabelled) if strangers.there(name)}
    assert there == {kept, other, foreign, unlabelled}


def test_who_is_lent_a_dead_holders_device_removes_its_container(strangers: Strangers) -> None:
    """By the mark that the holder noted; another of the same dead session stays for the sweep."""
    mark = uuid.uuid4().hex
    mine, other = strangers.one(**owned(f"{mark}.a")), strangers.one(**owned(f"{mark}.b"))
    dead = {**identity.of_this_process(), "pid": 4_000_000, "start_time": "1"}
    orphans.end({**dead, "mark": f"{mark}.a"}, device="GPU 0")
    assert (strangers.there(mine), strangers.there(other)) == (False, True)


def test_an_owner_is_known_again() -> None:
    """What the labels say of this process is true of it."""
    owner = json.loads(reaper.labels("r", "c", "m")[reaper.OWNER])
    assert identity.is_alive(owner)
    assert identity.is_of_this_host(owner)

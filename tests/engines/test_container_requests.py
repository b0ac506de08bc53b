"""What exactly is Docker asked for? Told by a double of its API, which needs neither Docker nor GPUs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt import shipped
from pytest_kitt.cards import EngineCard
from pytest_kitt.engine import dockerd, lease, pull, reaper, request, sibling, start
from pytest_kitt.engine.mounts import of_model
from pytest_kitt.engine.request import Network
from pytest_kitt.engine.runtime.container import Mount
from pytest_kitt.engine.sibling import Sibling
from pytest_kitt.engine.start import Place
from pytest_kitt.errors import EngineStartError, UserError
from pytest_kitt.matrix import build
from pytest_kitt.session import Engines
from pytest_kitt.settings import Settings
from tests.doubles.docker_api import DockerApi, docker_api
from tests.engines.contained import free_port, running

IMAGE = "registry.example/mine:1"
BENCHMARK = "def test_mine(kitt_engine):\n    assert kitt_engine.url\n"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerApi]:
    """A daemon that starts nothing, which DOCKER_HOST names; its socket's path is short, as the kernel wants it."""
    with tempfile.TemporaryDirectory(prefix="kd") as folder, docker_api(Path(folder) / "d.sock", images={IMAGE}) as api:
        monkeypatch.setenv("DOCKER_HOST", api.address)
        yield api
        assert not api.containers


def card(**runtime: Any) -> dict[str, Any]:
    """A card of an engine in a container."""
    container = {"command": ["{host}", "{model}", "{port}"], "port": free_port(), **runtime}
    images = [{"image": "kitt-test/named-by-the-test"}]
    return {
        "name": "mine",
        "description": "x",
        "runtimes": {"container": container},
        "images": images,
        "default_model": "m",
    }


def host_config(api: DockerApi) -> Mapping[str, Any]:
    """Of the only container."""
    (body,) = api.created()
    found: Mapping[str, Any] = body["HostConfig"]
    return found


def session(pytester: pytest.Pytester, home: Path, *args: str) -> pytest.RunResult:
    """A session that starts such an engine."""
    (home / "engines").mkdir(exist_ok=True)
    (home / "engines" / "mine.yaml").write_text(yaml.safe_dump(card()))
    pytester.makepyfile(test_mine=BENCHMARK)
    flags = ("--kitt-engine=mine", f"--kitt-image={IMAGE}", "-p", "no:cacheprovider", "test_mine.py")
    return pytester.runpytest_subprocess(*flags, *args)


@pytest.mark.parametrize("network", ["host", "bridge"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_the_gpus_that_are_leased_are_asked_for(
    pytester: pytest.Pytester,
    api: DockerApi,
    private_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    network: str,
) -> None:
    """By their ids; the container counts its own from 0, so nothing says which it may see."""
    monkeypatch.setenv("KITT_GPUS", "4,5,6,7")
    result = session(pytester, private_home, f"--kitt-cell-gpus={number}", f"--kitt-network={network}")
    result.assert_outcomes(passed=1)
    assert host_config(api)["DeviceRequests"] == [
        {
            "Driver": "",
            "Count": 0,
            "DeviceIDs": ["4", "5", "6", "7"][:number],
            "Capabilities": [["gpu"]],
            "Options": {},
        }
    ]
    (body,) = api.created()
    assert not any(variable.startswith("CUDA_VISIBLE_DEVICES") for variable in body["Env"])


def test_an_image_is_pulled_while_no_device_is_held(
    api: DockerApi, private_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes of a download keep nobody else from the GPU."""
    new, mine = "registry.example/new:1", EngineCard.model_validate(card())
    asked = Settings(engine=("mine",), runtime="container", image=(("*", new),), auto_pull=True)
    (cell,) = build(asked, {"mine": mine})
    here_when_asked: list[bool] = []

    def held(*_: object, **__: object) -> object:
        here_when_asked.append(new in api.images)
        raise EngineStartError("the device is asked for", kind="device")

    monkeypatch.setattr(lease, "held", held)
    engines = Engines(asked, {"mine": mine}, "run")
    with contextlib.closing(engines), pytest.raises(EngineStartError, match="the device is asked for"):
        engines.ensure(cell)
    assert here_when_asked == [True]
    assert private_home.is_dir()


@pytest.mark.parametrize("number", [1, 4])
def test_all_gpus_when_nobody_here_knows_them(
    pytester: pytest.Pytester, api: DockerApi, private_home: Path, number: int
) -> None:
    """--kitt-gpus=all, for example where pytest is itself in a container without any."""
    session(pytester, private_home, f"--kitt-cell-gpus={number}", "--kitt-gpus=all").assert_outcomes(passed=1)
    (asked,) = host_config(api)["DeviceRequests"]
    assert (asked["Count"], asked["DeviceIDs"]) == (-1, [])


def test_an_engine_on_the_cpu_asks_for_none(pytester: pytest.Pytester, api: DockerApi, private_home: Path) -> None:
    """Whatever GPUs there are."""
    session(pytester, private_home, "--kitt-gpus=4").assert_outcomes(passed=1)
    assert not host_config(api).get("DeviceRequests")


def test_gpus_of_amd_are_devices_of_the_kernel(api: DockerApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the numbers of the groups that may open them, and the ids for the runtime in the container."""
    monkeypatch.setattr(request, "is_amd", lambda: True)
    with running(card(), Place(tmp_path, "m", gpus=("1", "3")), image=(("*", IMAGE),)):
        (body,) = api.created()
    config = body["HostConfig"]
    assert [device["PathOnHost"] for device in config["Devices"]] == ["/dev/kfd", "/dev/dri"]
    assert all(group.isdecimal() for group in config.get("GroupAdd") or [])
    assert "DeviceRequests" not in config or not config["DeviceRequests"]
    assert "ROCR_VISIBLE_DEVICES=1,3" in body["Env"]


def test_an_image_may_be_entered_elsewhere(api: DockerApi, tmp_path: Path) -> None:
    """The table of images says where, for one whose own entry point is not what the command is written for."""
    raw = card(entrypoint=["usual"]) | {"images": [{"image": IMAGE, "entrypoint": ["/opt/entry", "serve"]}]}
    with running(raw, Place(tmp_path, "m")):
        pass
    (body,) = api.created()
    assert body["Entrypoint"] == ["/opt/entry", "serve"]


def test_a_container_on_the_hosts_network(api: DockerApi, tmp_path: Path, private_home: Path) -> None:
    """All that is asked for, and nothing else."""
    models = tmp_path / "odd, models: é"
    models.mkdir()
    (models / "m.gguf").write_bytes(shipped.TINY_MODEL.read_bytes())
    raw = card(shm="1g", ipc="host", volumes={"kernels": "/root/.cache"}, env={"A": "b"}) | {"formats": ["gguf"]}
    place = Place(tmp_path, "the-mark", run="a-run")
    with running(raw, place, image=(("*", IMAGE),), model=(str(models / "m.gguf"),)) as engine:
        port = engine.url.rpartition(":")[2]
    (body,) = api.created()
    config = {name: value for name, value in body["HostConfig"].items() if value}
    assert config == {
        "NetworkMode": "host",
        "Init": True,
        "SecurityOpt": ["no-new-privileges"],
        "ShmSize": 1 << 30,
        "IpcMode": "host",
        "Mounts": [
            {"Target": "/models", "Source": str(models), "Type": "bind", "ReadOnly": True},
            {
                "Target": "/root/.cache",
                "Source": str(private_home / "cache" / "mine" / "kernels"),
                "Type": "bind",
                "ReadOnly": False,
            },
        ],
    }
    assert body["Image"] == f"sha256:{'a' * 64}"
    assert body["Cmd"] == ["127.0.0.1", "/models/m.gguf", port]
    assert sorted(body["Env"]) == ["A=b", "KITT_MARK=the-mark"]
    assert set(body["Labels"]) == {reaper.RUN, reaper.CELL, reaper.MARK, reaper.OWNER}
    assert not body.get("ExposedPorts")
    assert not body.get("Tty")


def test_a_container_on_a_network_of_its_own(api: DockerApi, tmp_path: Path) -> None:
    """The engine listens on any address there, and its port is published on 127.0.0.1 alone."""
    with running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),), network="bridge") as engine:
        port = engine.url.rpartition(":")[2]
    (body,) = api.created()
    assert body["HostConfig"]["NetworkMode"] == "bridge"
    assert body["HostConfig"]["PortBindings"] == {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]}
    assert body["Cmd"][0] == "0.0.0.0"


@pytest.mark.usefixtures("api")
def test_the_digest_of_a_registry_is_kept(tmp_path: Path) -> None:
    """It names the image wherever it was pulled."""
    with running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),)) as engine:
        assert engine.image == pull.LocalImage(
            IMAGE, f"sha256:{'a' * 64}", f"registry.example/mine@sha256:{'b' * 64}", "amd64"
        )


@pytest.mark.parametrize(
    "said, label, version",
    [
        ("b0-unknown", "xllamacpp 1", "xllamacpp 1"),
        ("", "2.0", "2.0"),
        ("b6500-abc", "2.0", "b6500-abc"),
        ("b0-unknown", "", "b0-unknown"),
    ],
)
def test_an_engine_that_does_not_know_its_version(
    api: DockerApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, label: str, version: str
) -> None:
    """Its image's label does; what the engine knows itself comes first."""
    api.labels = {"org.opencontainers.image.version": label} if label else None
    monkeypatch.setattr(start, "version", lambda *_: said)
    with running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),)) as engine:
        assert engine.version == version


def test_a_hub_id_is_fetched_by_the_engine_with_the_users_token(
    api: DockerApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is in the container's environment, and in no argument; with a local model it is nowhere."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),), model=("org/name",)) as engine:
        assert engine.argv[1] == "org/name"
        assert "hf_secret" not in str(engine.argv)
    (body,) = api.created()
    assert "HF_TOKEN=hf_secret" in body["Env"]
    api.asked.clear()
    raw = card() | {"formats": ["gguf"]}
    with running(raw, Place(tmp_path, "m"), image=(("*", IMAGE),), model=("tiny",)):
        assert "hf_secret" not in json.dumps(api.created())


def pulled(api: DockerApi, tmp_path: Path, said: list[dict[str, Any]]) -> list[str | tuple[int, int]]:
    """What is told while an image is pulled, in words, or bytes that are here and bytes of all; no clock runs then."""
    told: list[str | tuple[int, int]] = []
    waits: list[bool] = []

    @contextlib.contextmanager
    def waiting() -> Iterator[None]:
        waits.append(True)
        yield
        waits.pop()

    def tell(name: str, done: int, total: int, before: int) -> None:
        assert (name, before, waits) == (IMAGE, 0, [True])
        told.append((done, total))

    api.images.clear()
    api.pull_says = said
    place = dataclasses.replace(
        Place(tmp_path, "m"),
        on_step=lambda word: told.append(word.removeprefix(f"pulls {IMAGE}: ")),
        on_fetch=tell,
        waiting=waiting,
    )
    with running(card(), place, image=(("*", IMAGE),), auto_pull=True):
        pass
    return told


def layer(name: str, current: int, total: int) -> dict[str, Any]:
    """An event of a pull."""
    return {"status": "Downloading", "id": name, "progressDetail": {"current": current, "total": total}}


def test_a_pull_tells_how_far_it_is(api: DockerApi, tmp_path: Path) -> None:
    """The bytes of all layers together, and words before and after; the one tag that is wanted, and no other."""
    said = [
        {"status": "Pulling from mine", "id": "1"},
        {"status": "Already exists", "id": "base"},
        layer("a", 1_000_000, 10_000_000),
        {"status": "Waiting", "id": "b"},
        layer("b", 5_000_000, 30_000_000),
        layer("b", 5_000_000, 30_000_000),
        {"status": "Download complete", "id": "a"},
        {"status": "Extracting", "id": "a", "progressDetail": {"current": 5, "total": 10_000_000}},
        {"status": "Download complete", "id": "b"},
        {"status": "Pull complete", "id": "base"},
        {"status": "Extracting", "id": "b", "progressDetail": {"current": 5, "total": 30_000_000}},
        {"status": "Pull complete", "id": "b"},
    ]
    assert pulled(api, tmp_path, said) == [
        "Pulling from mine",
        "Already exists",
        (1_000_000, 10_000_000),
        (6_000_000, 40_000_000),
        (15_000_000, 40_000_000),
        (40_000_000, 40_000_000),
        "Pull complete",
        "Extracting",
        "Pull complete",
    ]
    (asked,) = (asked for asked in api.asked if asked.path == "/images/create")
    assert asked.query["tag"] == "1"


@pytest.mark.parametrize(
    "said, kind, sentence",
    [
        ("pull access denied for mine, repository does not exist or may require 'docker login'", "refused", "login"),
        ("manifest for mine:1 not found: manifest unknown", "missing", "check name and tag"),
        ("Get https://x/v2/: dial tcp: lookup x: no such host", "network", "the registry cannot be reached"),
        ("write /var/lib/docker/tmp/x: no space left on device", "disk", "the disk is full"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "architecture", "not made for amd64"),
        ("toomanyrequests: You have reached your pull rate limit", "refused", "no more through for now"),
        ("something new", "pull", "something new"),
    ],
)
def test_a_pull_that_fails_is_one_sentence(api: DockerApi, tmp_path: Path, said: str, kind: str, sentence: str) -> None:
    """With the class and what to do."""
    with pytest.raises(EngineStartError) as caught:
        pulled(api, tmp_path, [layer("a", 1, 2), {"error": said}])
    assert caught.value.kind == kind
    assert str(caught.value).startswith(f"image {IMAGE} cannot be pulled: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said, kind",
    [
        ('could not select device driver "" with capabilities: [[gpu]]', "gpu"),
        ("driver failed programming: Bind for 127.0.0.1:8000 failed: port is already allocated", "port"),
        ("exec /server: exec format error", "architecture"),
        ('exec: "vllm": executable file not found in $PATH', "command"),
        ("something new", "docker"),
    ],
)
def test_a_start_that_docker_refuses(api: DockerApi, tmp_path: Path, said: str, kind: str) -> None:
    """Its words are classed and shown, and the container that it had created is removed."""
    api.refuses_start = said
    with pytest.raises(EngineStartError) as caught, running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),)):
        pass
    assert caught.value.kind == kind
    assert said in str(caught.value)
    assert not api.containers


def test_a_daemon_that_goes_away(api: DockerApi, tmp_path: Path) -> None:
    """In the middle of a start: one sentence."""
    api.vanishes_at = "/start"
    with pytest.raises(EngineStartError) as caught, running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),)):
        pass
    assert caught.value.kind == "docker"
    assert str(caught.value).startswith("Docker does not answer any more: ")


def test_another_architecture_is_tried_only_by_force(api: DockerApi, tmp_path: Path) -> None:
    """Machines can be made to run foreign programs."""
    image = (("*", IMAGE),)
    api.architecture = "arm64"
    with running(card(), Place(tmp_path, "m"), image=image):
        pass  # image and machine are alike
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pull, "_machine", lambda _: "amd64")
        refused = pytest.raises(EngineStartError, match="is for arm64, and this machine is amd64")
        with refused as caught, running(card(), Place(tmp_path, "m"), image=image):
            pass
        assert caught.value.kind == "architecture"
        with running(card(), Place(tmp_path, "m"), image=image, force=True):
            pass


def test_what_a_dead_session_left_is_swept_before_anything_starts(
    pytester: pytest.Pytester, api: DockerApi, private_home: Path
) -> None:
    """And said; what was kept on purpose, and what is no container of ours, stays."""
    labels = reaper.labels("a-run", "a-cell", "a-mark")
    dead = {**labels, reaper.OWNER: json.dumps({**json.loads(labels[reaper.OWNER]), "start_time": "1"})}
    api.left_there("kitt-orphan", dead)
    api.left_there(f"{reaper.KEPT}orphan", dead)
    api.left_there("somebodys", {})
    result = session(pytester, private_home)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*removed container kitt-orphan, which a session that was killed had left*"])
    assert {container.name for container in api.containers.values()} == {f"{reaper.KEPT}orphan", "somebodys"}
    order = [(asked.method, asked.path) for asked in api.asked if asked.method != "GET"]
    assert order[0][0] == "DELETE"
    assert order[1] == ("POST", "/containers/create")
    api.containers.clear()


# -- what is mounted of a model


def test_a_file_comes_with_its_folder_and_a_folder_as_it_is(tmp_path: Path) -> None:
    """Other shards lie beside it."""
    (tmp_path / "a b.gguf").touch()
    assert of_model(tmp_path / "a b.gguf", "/models") == ((Mount(str(tmp_path), "/models"),), "/models/a b.gguf")
    assert of_model(tmp_path, "/models") == ((Mount(str(tmp_path), "/models"),), "/models")


def test_a_snapshot_of_the_hub_comes_with_its_blobs(tmp_path: Path) -> None:
    """The links lead from one to the other."""
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "blobs" / "123").touch()
    (snapshot / "w.gguf").symlink_to("../../blobs/123")
    mounts = (Mount(str(repository), "/models"),)
    assert of_model(snapshot, "/models") == (mounts, "/models/snapshots/abc")
    assert of_model(snapshot / "w.gguf", "/models") == (mounts, "/models/snapshots/abc/w.gguf")
    (snapshot / "sub").mkdir()
    (snapshot / "sub" / "w.gguf").symlink_to("../../../blobs/123")
    assert of_model(snapshot / "sub" / "w.gguf", "/models") == (mounts, "/models/snapshots/abc/sub/w.gguf")


def test_links_that_lead_anywhere_are_mounted_one_by_one(tmp_path: Path) -> None:
    """Nothing else of the folders that they lead to is shown."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere" / "w").touch()
    (tmp_path / "models" / "m-00001-of-00002.gguf").symlink_to(tmp_path / "elsewhere" / "w")
    (tmp_path / "models" / "m-00002-of-00002.gguf").touch()
    (tmp_path / "models" / "secret").touch()
    mounts, inside = of_model(tmp_path / "models" / "m-00001-of-00002.gguf", "/models")
    assert inside == "/models/m-00001-of-00002.gguf"
    assert mounts == (
        Mount(str(tmp_path / "elsewhere" / "w"), "/models/m-00001-of-00002.gguf"),
        Mount(str(tmp_path / "models" / "m-00002-of-00002.gguf"), "/models/m-00002-of-00002.gguf"),
    )


# -- beside a container of our own

OURS = Sibling("f" * 64, "net-a", ("net-a",), {"/work": "/home/ann/work", "/work/models": "/data/models"})


@pytest.mark.parametrize(
    "wanted, ours, platform, expected",
    [
        ("host", None, "linux", Network("host", "127.0.0.1")),
        ("bridge", None, "linux", Network("bridge", "0.0.0.0", published=True)),
        ("host", None, "darwin", Network("bridge", "0.0.0.0", published=True)),
        ("host", OURS, "linux", Network(f"container:{OURS.id}", "127.0.0.1")),
        ("bridge", OURS, "linux", Network("net-a", "0.0.0.0")),
        ("host", dataclasses.replace(OURS, network="host"), "linux", Network("host", "127.0.0.1")),
        (
            "bridge",
            dataclasses.replace(OURS, network="host", networks=("host",)),
            "linux",
            Network("bridge", "0.0.0.0", published=True),
        ),
    ],
)
def test_which_network_the_engine_is_in(wanted: str, ours: Sibling | None, platform: str, expected: Network) -> None:
    """The one where pytest reaches it."""
    assert request.network(wanted, ours, system=platform) == expected


def test_without_a_network_no_engine_can_be_reached() -> None:
    """One sentence."""
    with pytest.raises(EngineStartError, match="without a network"):
        request.network("host", dataclasses.replace(OURS, network="none"))


def test_paths_are_those_of_dockers_host() -> None:
    """The innermost mount decides; what is on none cannot be given to another container."""
    assert OURS.host_path("/work/models/a/b.gguf") == "/data/models/a/b.gguf"
    assert OURS.host_path("/work/x") == "/home/ann/work/x"
    with pytest.raises(EngineStartError, match=r"does not see /workshop/x there: .* it has: /work, /work/models"):
        OURS.host_path("/workshop/x")


@pytest.mark.parametrize(
    "mountinfo, cgroup, hostname, expected",
    [
        (
            f"1 2 8:1 /var/lib/docker/containers/{'a' * 64}/hostname /etc/hostname rw - ext4 x rw",
            "0::/",
            "web",
            ["a" * 64],
        ),
        (f"1 2 8:1 /containers/{'a' * 64}/mounts/shm /var/lib/docker/x/shm rw - tmpfs x rw", "0::/", "host", []),
        ("", f"4:memory:/docker/{'b' * 64}\n", "web", ["b" * 64]),
        ("", f"0::/system.slice/docker-{'c' * 64}.scope\n", "web", ["c" * 64]),
        ("", "0::/", "0123456789ab", ["0123456789ab"]),
        ("", "0::/", "host", []),
    ],
)
def test_how_our_own_container_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mountinfo: str, cgroup: str, hostname: str, expected: list[str]
) -> None:
    """By what Docker mounts into it, its control group, or its name; on a host there is none."""
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    monkeypatch.setattr("socket.gethostname", lambda: hostname)
    assert sibling._candidates(tmp_path) == expected


# -- where Docker is


def test_the_daemon_is_that_of_the_docker_command(tmp_path: Path) -> None:
    """DOCKER_HOST, then the context, with its certificates, then the usual socket."""
    env = {"DOCKER_CONFIG": str(tmp_path)}
    assert dockerd.address({**env, "DOCKER_HOST": "tcp://h:1"}) == dockerd.Docker("tcp://h:1")
    tls = {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
    assert dockerd.address({**env, **tls}) == dockerd.Docker("tcp://h:1", "/certs")
    assert dockerd.address(env).socket == "/var/run/docker.sock"
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "tcp://far:2376"}}}))
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert dockerd.address(env) == dockerd.Docker("tcp://far:2376")
    certificates = tmp_path / "contexts" / "tls" / meta.name / "docker"
    certificates.mkdir(parents=True)
    assert dockerd.address(env) == dockerd.Docker("tcp://far:2376", str(certificates))
    with pytest.raises(UserError, match="context 'none' cannot be read"):
        dockerd.address({**env, "DOCKER_CONTEXT": "none"})


def test_the_context_is_not_left_in_the_environment(
    api: DockerApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user's other tests see of Docker is as it was."""
    meta = tmp_path / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": "mine", "Endpoints": {"docker": {"Host": api.address}}}))
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    with running(card(), Place(tmp_path, "m"), image=(("*", IMAGE),)):
        assert "DOCKER_HOST" not in os.environ
    assert len(api.created()) == 1

"""Is a service of a compose file measured, and is all that was brought up gone, however the session ends?"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_kitt import shipped
from pytest_kitt.engine import compose, dockerd, reaper
from tests.engines.contained import PATIENCE_S, SERVER, left, pytest_inside, raw_card
from tests.plugin.test_container import ends, watchdog

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(importlib.util.find_spec("pytest_docker") is None, reason="pytest-docker is not installed"),
    pytest.mark.skipif(not compose.program(), reason="neither docker compose nor docker-compose is installed"),
]

PACKAGES = Path("/usr/lib/python3/dist-packages")  # of Debian, where docker-compose is written in Python
BENCHMARK = """
import os, time
from pathlib import Path
WHERE = Path(os.environ["WHERE"])

def test_first(kitt_engine, kitt_load):
    (WHERE / "idle").write_text(kitt_engine.process.name)
    while os.environ["STAGE"] == "idle" and not (WHERE / "go").exists():
        time.sleep(0.1)
    kitt_load("closed:2", "synthetic:8:1", "requests:4")
"""


@pytest.fixture
def model(docker_client: Any) -> Iterator[str]:
    """A name of the test's own, by which what it leaves is found; that is nothing."""
    name = f"m{uuid.uuid4().hex[:10]}"
    yield name
    gone = none_left(docker_client, f"mine-{name}")  # a watchdog looks for what Docker was just about to create
    found = all_left(docker_client, f"mine-{name}")
    for container in left(docker_client, reaper.CELL, f"mine-{name}"):
        docker_client.containers.get(container).remove(force=True)
    assert gone, f"left behind: {found}"


@pytest.fixture(autouse=True)
def mine(private_home: Path) -> None:
    """A card of the test's server."""
    (private_home / "engines").mkdir()
    (private_home / "engines" / "mine.yaml").write_text(yaml.safe_dump(raw_card()))


def all_left(client: Any, cell: str) -> list[str]:
    """Names of the containers, networks and volumes of a cell."""
    label = {"filters": {"label": f"{reaper.CELL}={cell}"}}
    networks = [str(network.name) for network in client.networks.list(**label)]
    volumes = [str(volume.name) for volume in client.volumes.list(**label)]
    return [*left(client, reaper.CELL, cell), *networks, *volumes]


def none_left(client: Any, cell: str) -> bool:
    """Whether all of a cell is gone, soon."""
    deadline = time.monotonic() + PATIENCE_S
    while (names := all_left(client, cell)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not names


def anonymous_volumes(client: Any) -> set[str]:
    """Names of the volumes that nobody has named and no container has."""
    dangling = client.volumes.list(filters={"dangling": "true"})
    return {str(volume.name) for volume in dangling if len(str(volume.name)) == 64}


def engine(image: str, mode: str = "serve", **said: Any) -> dict[str, Any]:
    """The service that is measured: a small server, or one that does not become one."""
    return {
        "image": image,
        "entrypoint": ["python3", "-u", "-c", SERVER.replace("$", "$$"), mode, "0.0.0.0", "8080"],
        "ports": ["127.0.0.1::8080"],
        "depends_on": ["beside"],
        "init": True,  # without which it would not hear that it is to stop
        "restart": "always",
        **said,
    }


def stack(folder: Path, image: str, said: dict[str, Any], **beside: Any) -> Path:
    """A compose file with the engine and a service that it depends on, each with what it keeps."""
    idle = {"image": image, "entrypoint": ["sleep", "600"], "init": True, "volumes": ["/unnamed"]}
    services = {"engine": said, "beside": idle | beside, "unused": {"image": "kitt-test/none:1"}}
    file = folder / "its stack $1.yaml"
    file.write_text(yaml.safe_dump({"services": services, "volumes": {"kept": {}}}))
    return file


def flags(file: Path, model: str) -> tuple[str, ...]:
    """What to measure."""
    named = ("--kitt-engine=mine", f"--kitt-model={model}", f"--kitt-compose={file}", "--kitt-service=engine")
    return (*named, "-p", "no:cacheprovider")


@contextlib.contextmanager
def session(folder: Path, stage: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A session in a process group of its own, that stays at a stage; its watchdog ends soon after it."""
    (folder / "test_mine.py").write_text(BENCHMARK)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *args, "test_mine.py"],
        cwd=folder,
        env={**os.environ, "WHERE": str(folder), "STAGE": stage},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def comes(process: subprocess.Popen[str], path: Path | None = None, client: Any = None, cell: str = "") -> None:
    """Waits for a file that a session writes, or for the first container of its cell."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while not (path.exists() if path else left(client, reaper.CELL, cell)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def test_the_real_server_as_a_service(pytester: pytest.Pytester, llama_image: str, docker_client: Any) -> None:
    """llama.cpp is measured; which model it serves is asked, image and digest are with the result, nothing is left."""
    words = ["--model", "/models/tiny.gguf", "--alias", "the-tiny", "--host", "0.0.0.0", "--port", "8080"]
    small = ["--ctx-size", "8192", "--parallel", "8", "--threads", "1", "--jinja"]
    llama = {
        "image": llama_image,
        "command": [*words, *small],
        "ports": ["127.0.0.1::8080"],
        "volumes": [f"{shipped.TINY_MODEL.parent}:/models:ro", "kept:/kept"],
        "depends_on": ["beside"],
    }
    unnamed = anonymous_volumes(docker_client)
    file = stack(pytester.path, llama_image, llama)
    result = pytester.runpytest_subprocess(
        *("--kitt-suite=quick", "--kitt-engine=llama_cpp", "-p", "no:cacheprovider", "--kitt-output=out"),
        *(f"--kitt-compose={file}", "--kitt-service=engine"),
    )
    outcomes = result.parseoutcomes()  # the tiny model gives few right answers where it is asked as others are
    assert outcomes["passed"] + outcomes.get("xfailed", 0) == 4, outcomes
    assert not outcomes.keys() & {"failed", "error", "errors", "skipped"}
    (cell,) = json.loads((pytester.path / "out" / "config.json").read_text())["cells"]
    assert (cell["id"], cell["runtime"], cell["model"]["name"]) == ("llama_cpp-engine", "compose", "the-tiny")
    assert (cell["image"], cell["image_digest"]) == (llama_image, docker_client.images.get(llama_image).id)
    assert cell["argv"][:3] == ["llama-server", "--model", "/models/tiny.gguf"]
    assert none_left(docker_client, "llama_cpp-engine")
    assert not anonymous_volumes(docker_client) - unnamed


@pytest.mark.parametrize(
    "mode, sentence",
    [
        ("exit", "mine ended with exit code 3 before it was ready: it cannot load the model"),
        ("never", "was not ready after 20 s; give it more with --kitt-start-timeout"),
    ],
)
def test_why_it_did_not_become_ready(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any, mode: str, sentence: str
) -> None:
    """Its class and the end of its log; a restart that the file asks for is not waited for."""
    file = stack(tmp_path, llama_image, engine(llama_image, mode))
    with session(tmp_path, "", *flags(file, model), "--kitt-start-timeout=20") as process:
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 1, said
    assert sentence in said
    assert "mine begins:" in said
    assert none_left(docker_client, f"mine-{model}")


def test_a_service_that_it_depends_on_is_not_well(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any
) -> None:
    """Compose does not start the engine, and says why."""
    waits = {"beside": {"condition": "service_healthy"}}
    sick = {"healthcheck": {"test": ["CMD", "false"], "interval": "1s", "retries": 1}}
    file = stack(tmp_path, llama_image, engine(llama_image, depends_on=waits), **sick)
    with session(tmp_path, "", *flags(file, model)) as process:
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert "does not start: a service that it depends on is not well" in said
    assert none_left(docker_client, f"mine-{model}")


def test_one_that_is_killed_is_dead(tmp_path: Path, llama_image: str, model: str, docker_client: Any) -> None:
    """Although its file says that it is always to be started again."""
    file = stack(tmp_path, llama_image, engine(llama_image))
    with session(tmp_path, "idle", *flags(file, model)) as process:
        comes(process, tmp_path / "idle")
        container = docker_client.containers.get((tmp_path / "idle").read_text())
        container.kill()
        (tmp_path / "go").touch()
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert "was killed by signal 9 (SIGKILL) after it had been ready" in said
    assert none_left(docker_client, f"mine-{model}")


@pytest.mark.parametrize("stage", ["starting", "idle"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["INT", "KILL"])
def test_a_session_that_is_ended_leaves_nothing(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any, stage: str, number: int
) -> None:
    """While compose brings it up, and when it is up: no container, no network, no volume of the project."""
    file = stack(tmp_path, llama_image, engine(llama_image, volumes=["kept:/kept"]))
    with session(tmp_path, "idle", *flags(file, model)) as process:
        if stage == "idle":
            comes(process, tmp_path / "idle")
        else:
            comes(process, client=docker_client, cell=f"mine-{model}")
        dog = watchdog(process.pid)
        os.kill(process.pid, number)
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert ends(dog)
    assert process.returncode == (2 if number == signal.SIGINT else -number), said
    assert none_left(docker_client, f"mine-{model}")


def test_two_sessions_at_once(tmp_path: Path, llama_image: str, model: str, docker_client: Any) -> None:
    """The same file twice: each has a project of its own, and takes only that with it."""
    file = stack(tmp_path, llama_image, engine(llama_image))
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    with contextlib.ExitStack() as both:
        first = both.enter_context(session(one, "idle", *flags(file, model), "--kitt-overlap=allowed"))
        second = both.enter_context(session(two, "idle", *flags(file, f"{model}b"), "--kitt-overlap=allowed"))
        comes(first, one / "idle")
        comes(second, two / "idle")
        dog = watchdog(first.pid)
        first.kill()
        first.communicate(timeout=PATIENCE_S)
        assert ends(dog)
        assert none_left(docker_client, f"mine-{model}")
        assert docker_client.containers.get((two / "idle").read_text()).status == "running"
        os.kill(second.pid, signal.SIGINT)
        said, _ = second.communicate(timeout=2 * PATIENCE_S)
    assert second.returncode == 2, said
    assert none_left(docker_client, f"mine-{model}b")


def test_a_kept_project_stays_until_it_is_ended_as_printed(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any
) -> None:
    """--kitt-keep-engine: later sessions leave all of it alone."""
    file = stack(tmp_path, llama_image, engine(llama_image))
    with session(tmp_path, "", *flags(file, model), "--kitt-keep-engine") as process:
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, said
    names = left(docker_client, reaper.CELL, f"mine-{model}")
    assert len(names) == 2
    assert all(name.startswith(reaper.KEPT) for name in names)
    (down,) = (line.partition("stop: ")[2] for line in said.splitlines() if line.startswith("  stop: "))
    with session(tmp_path, "", *flags(file, f"{model}b")) as process:
        said, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert f"to stop it: {down}" in said
    assert {docker_client.containers.get(name).status for name in names} == {"running"}
    subprocess.run(down, shell=True, check=True, capture_output=True)
    reaper.sweep(dockerd.address())  # as the next session does: its volumes
    assert none_left(docker_client, f"mine-{model}")


@pytest.mark.parametrize(
    "said, sentence",
    [
        ({"ports": []}, "*service 'engine' publishes no port: add one to it in the file*"),
        ({"image": "kitt-test/none:1"}, "*image kitt-test/none:1 of service 'engine' is not here: docker pull *"),
        ({"image": None}, "*service 'engine' has no image: give it one*"),
        ({"colour": "red"}, "*--kitt-compose: *colour*"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_before_anything_starts(
    pytester: pytest.Pytester, llama_image: str, model: str, said: dict[str, Any], sentence: str
) -> None:
    """One sentence: what, where and the next step."""
    described = {key: value for key, value in (engine(llama_image) | said).items() if value is not None}
    if "image" not in described:
        described["build"] = "."
    file = stack(pytester.path, llama_image, described)
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess(*flags(file, model), "test_mine.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])


def test_in_the_hosts_network_it_is_where_its_card_says(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any, private_home: Path
) -> None:
    """Nothing is published there."""
    card = yaml.safe_load((private_home / "engines" / "mine.yaml").read_text())
    port = str(card["runtimes"]["container"]["port"])
    words = ["python3", "-u", "-c", SERVER.replace("$", "$$"), "serve", "127.0.0.1", port]
    said: dict[str, Any] = {"entrypoint": words, "network_mode": "host", "ports": []}
    file = stack(tmp_path, llama_image, engine(llama_image, **said))
    with session(tmp_path, "", *flags(file, model)) as process:
        told, _ = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, told
    assert none_left(docker_client, f"mine-{model}")


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or not (PACKAGES / "compose").is_dir(),
    reason="the image's Python is 3.11, and takes docker-compose and this one's packages as they are",
)
def test_from_a_container_beside_it(
    tmp_path: Path, llama_image: str, model: str, docker_client: Any, private_home: Path
) -> None:
    """Pytest joins the project's network for as long as it measures: no port need be published."""
    file = stack(tmp_path, llama_image, {**engine(llama_image), "ports": [], "expose": ["8080"]})
    (tmp_path / "test_mine.py").write_text(BENCHMARK)
    same = (str(tmp_path), str(private_home), "/usr/bin/docker-compose", str(PACKAGES))
    said = pytest_inside(
        docker_client,
        llama_image,
        [*flags(file, model), "test_mine.py"],
        seen={path: path for path in same},
        env={"KITT_HOME": str(private_home), "WHERE": str(tmp_path), "STAGE": ""},
        folder=str(tmp_path),
    )
    assert "1 passed" in said
    assert none_left(docker_client, f"mine-{model}")

"""Does a session measure engines in containers, and leave none, however it ends?"""

from __future__ import annotations

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
from docker.types import Mount

import pytest_kitt
from pytest_kitt import shipped
from pytest_kitt.engine import dockerd, reaper
from tests.engines.contained import PATIENCE_S, left, llama_card, none_left, raw_card

pytestmark = pytest.mark.docker

BENCHMARK = """
import os, time
from pathlib import Path
WHERE = Path(os.environ["WHERE"])

def test_first(kitt_engine, kitt_load):
    (WHERE / "idle").write_text(kitt_engine.process.name)
    if os.environ["STAGE"] == "idle":
        time.sleep(60)
    (WHERE / "load").write_text("x")
    kitt_load("closed:2", "synthetic:8:1", os.environ.get("STOP", "requests:4"))

def test_second(kitt_engine, kitt_load):
    kitt_load("closed:1", "synthetic:8:1", "requests:4")
"""


@pytest.fixture
def model(docker_client: Any) -> Iterator[str]:
    """A name of the test's own, by which its containers are found; none is left."""
    name = f"m{uuid.uuid4().hex[:10]}"
    yield name
    names = left(docker_client, reaper.CELL, f"mine-{name}")
    for container in names:
        docker_client.containers.get(container).remove(force=True)
    assert not names, f"containers left behind: {names}"


def ends(pid: int) -> bool:
    """Whether a process ends: a watchdog looks for a while whether Docker creates yet what it was asked for."""
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not Path(f"/proc/{pid}").exists()


def put(home: Path, raw: dict[str, Any]) -> None:
    """A card of the user's own."""
    (home / "engines").mkdir(exist_ok=True)
    (home / "engines" / f"{raw['name']}.yaml").write_text(yaml.safe_dump(raw))


def flags(image: str, model: str) -> tuple[str, ...]:
    """What to measure."""
    return ("--kitt-engine=mine", f"--kitt-model={model}", f"--kitt-image={image}", "-p", "no:cacheprovider")


def appears(path: Path, process: subprocess.Popen[str]) -> None:
    """Waits for a file that a session writes."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.05)


def session(folder: Path, stage: str, *args: str) -> subprocess.Popen[str]:
    """A session in a process group of its own, that stays at a stage."""
    (folder / "test_mine.py").write_text(BENCHMARK)
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:randomly", *args, "test_mine.py"],
        cwd=folder,
        env={
            **os.environ,
            "WHERE": str(folder),
            "STAGE": stage,
            "STOP": "seconds:60" if stage == "load" else "requests:4",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def started(client: Any, model: str, process: subprocess.Popen[str]) -> None:
    """Waits for the container of a session."""
    deadline = time.monotonic() + PATIENCE_S
    while not left(client, reaper.CELL, f"mine-{model}"):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the container never came"
        time.sleep(0.05)


def test_the_real_server_in_a_real_container(
    pytester: pytest.Pytester, llama_image: str, private_home: Path, docker_client: Any
) -> None:
    """llama.cpp is measured; image and digest are with the result, in the store and in the files."""
    llama_card(private_home)
    result = pytester.runpytest_subprocess(
        *("--kitt-suite=quick", "--kitt-engine=llama_cpp", "--kitt-runtime=container", "-p", "no:cacheprovider"),
        *(f"--kitt-image={llama_image}", "--kitt-output=out", "--junitxml=junit.xml"),
    )
    result.assert_outcomes(passed=4)
    config = json.loads((pytester.path / "out" / "config.json").read_text())
    (cell,) = config["cells"]
    assert cell["runtime"] == "container"
    assert cell["image"] == llama_image
    assert cell["engine_version"].startswith("xllamacpp ")  # by its label, as it does not know that itself
    assert cell["image_digest"] == docker_client.images.get(llama_image).id
    assert f'name="kitt.image_digest" value="{cell["image_digest"]}"' in (pytester.path / "junit.xml").read_text()


def test_two_models_on_two_workers(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    llama_image: str,
    private_home: Path,
    model: str,
    docker_client: Any,
) -> None:
    """Each has its container and its port, at the same time."""
    put(private_home, raw_card())
    pytester.makepyfile(test_mine=BENCHMARK)
    monkeypatch.setenv("WHERE", str(pytester.path))
    monkeypatch.setenv("STAGE", "")
    args = flags(llama_image, f"{model},{model}b")
    result = pytester.runpytest_subprocess(*args, "-n2", "--kitt-overlap=allowed", "test_mine.py")
    result.assert_outcomes(passed=4)
    assert none_left(docker_client, f"mine-{model}")
    assert none_left(docker_client, f"mine-{model}b")


@pytest.mark.parametrize("stage", ["starting", "idle", "load"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"])
def test_a_session_that_is_ended_leaves_no_container(
    tmp_path: Path,
    llama_image: str,
    private_home: Path,
    model: str,
    docker_client: Any,
    stage: str,
    number: int,
) -> None:
    """While the engine starts, while it waits and while it answers."""
    put(private_home, raw_card("never" if stage == "starting" else "serve"))
    with session(tmp_path, stage, *flags(llama_image, model)) as process:
        if stage == "starting":
            started(docker_client, model, process)
        else:
            appears(tmp_path / stage, process)
        dog = watchdog(process.pid)
        os.kill(process.pid, number)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (-9 if number == signal.SIGKILL else 2), said
    assert none_left(docker_client, f"mine-{model}")
    assert ends(dog)


def test_a_second_signal_hurries(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any
) -> None:
    """An engine that does not want to end is not waited for."""
    raw = raw_card()
    command = raw["runtimes"]["container"]["command"]
    command[1] = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{command[1]}"
    put(private_home, raw)
    with session(tmp_path, "idle", *flags(llama_image, model)) as process:
        appears(tmp_path / "idle", process)
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert none_left(docker_client, f"mine-{model}")


def test_when_the_watchdog_is_killed_too_the_next_session_sweeps(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any
) -> None:
    """What a session and its watchdog left, whoever comes next removes: here perhaps the session of another test."""
    put(private_home, raw_card())
    with session(tmp_path, "idle", *flags(llama_image, model)) as process:
        appears(tmp_path / "idle", process)
        os.kill(watchdog(process.pid), signal.SIGKILL)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    with session(tmp_path, "", *flags(llama_image, f"{model}b")) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert none_left(docker_client, f"mine-{model}"), said


def test_a_session_that_is_killed_takes_only_its_own_with_it(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any
) -> None:
    """Another session's engine, at the same time and on the same card, serves on."""
    put(private_home, raw_card())
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    args = ("--kitt-overlap=allowed",)
    with session(one, "idle", *flags(llama_image, model), *args) as first:
        appears(one / "idle", first)
        with session(two, "load", *flags(llama_image, f"{model}b"), *args) as second:
            appears(two / "load", second)
            dog = watchdog(first.pid)
            first.kill()
            first.communicate(timeout=PATIENCE_S)
            assert none_left(docker_client, f"mine-{model}")
            assert ends(dog)
            assert docker_client.containers.get((two / "idle").read_text()).status == "running"
            os.kill(second.pid, signal.SIGINT)
            said, _ = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 2, said
    assert none_left(docker_client, f"mine-{model}b")


def watchdog(session: int) -> int:
    """The process id of a session's watchdog."""
    (dog,) = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and is_watchdog_of(p, session))
    return dog


def is_watchdog_of(process: Path, session: int) -> bool:
    """Whether a process is the watchdog that a session has started."""
    try:
        parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        return parent == session and b"watchdog.py" in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_kept_engine_answers_until_it_is_removed_as_printed(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any
) -> None:
    """--kitt-keep-engine: later sessions leave it alone, and say that it is there."""
    put(private_home, raw_card())
    args = flags(llama_image, model)
    try:
        with session(tmp_path, "", *args, "--kitt-keep-engine") as process:
            said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        (name,) = left(docker_client, reaper.CELL, f"mine-{model}")
        assert f"  stop: docker rm -f {name}" in said
        with session(tmp_path, "", *flags(llama_image, f"{model}b")) as process:
            said, _ = process.communicate(timeout=PATIENCE_S)
        assert f"to stop it: docker rm -f {name}" in said
        assert docker_client.containers.get(name).status == "running"
    finally:
        for name in left(docker_client, reaper.CELL, f"mine-{model}"):
            docker_client.containers.get(name).remove(force=True)


def test_an_engine_that_is_killed_under_load_is_one_error(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any
) -> None:
    """Its class and the end of its log; the other items of its cell skip."""
    put(private_home, raw_card())
    with session(tmp_path, "load", *flags(llama_image, model)) as process:
        appears(tmp_path / "load", process)
        docker_client.containers.get((tmp_path / "idle").read_text()).kill()
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert "killed by signal 9 (SIGKILL) after it had been ready" in said
    assert "mine listens" in said
    assert "1 skipped" in said
    assert none_left(docker_client, f"mine-{model}")


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the image's Python is 3.11, and has no packages of its own"
)
@pytest.mark.parametrize("network", ["bridge", "host"])
def test_from_inside_a_container(
    tmp_path: Path, llama_image: str, private_home: Path, model: str, docker_client: Any, network: str
) -> None:
    """With Docker's socket, pytest in a container starts engines beside itself, reaches them, and mounts its models."""
    weights = tmp_path / "models" / f"{model}.gguf"
    weights.parent.mkdir()
    weights.write_bytes(shipped.TINY_MODEL.read_bytes())
    put(private_home, raw_card() | {"formats": ["gguf"]})
    (tmp_path / "test_mine.py").write_text(BENCHMARK)
    root, packages = str(Path(pytest_kitt.__file__).parents[1]), str(Path(pytest.__file__).parents[1])
    seen = {root: root, packages: packages, str(tmp_path): "/work", str(private_home): "/home-of-kitt"}
    pytest_in_it = docker_client.containers.create(
        llama_image,
        entrypoint=["python3", "-P", "-m", "pytest", "-p", "no:cacheprovider"],
        command=[*flags(llama_image, f"/work/models/{model}.gguf"), "test_mine.py"],
        environment={
            "PYTHONPATH": f"{root}:{packages}",
            "KITT_HOME": "/home-of-kitt",
            "KITT_CERTIFY": "record",
            "WHERE": "/work",
            "STAGE": "",
        },
        mounts=[
            *(Mount(inside, path, type="bind") for path, inside in seen.items()),
            Mount("/var/run/docker.sock", dockerd.address().socket, type="bind"),
        ],
        network_mode=network,
        user="0",
        working_dir="/work",
        labels={"kitt-test": "pytest"},
    )
    try:
        pytest_in_it.start()
        code = pytest_in_it.wait(timeout=4 * PATIENCE_S)["StatusCode"]
        said = pytest_in_it.logs().decode()
    finally:
        pytest_in_it.remove(force=True)
    assert code == 0, said
    assert "2 passed" in said
    assert none_left(docker_client, f"mine-{model}")


def test_an_image_that_is_not_here_is_told_before_anything_starts(
    pytester: pytest.Pytester, private_home: Path, model: str
) -> None:
    """The only cell: a wrong input, with the commands that help."""
    put(private_home, raw_card())
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess(*flags("kitt-test/none:1", model))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*image kitt-test/none:1 of engine mine is not here: docker pull kitt-test/none:1*"])


@pytest.mark.parametrize(
    "host, sentence",
    [
        ("unix:///nowhere/docker.sock", "Docker is not there: no /nowhere/docker.sock; install or start it*"),
        ("tcp://127.0.0.1:1", "Docker does not run: nobody listens at tcp://127.0.0.1:1;*"),
        ("ssh://host", "DOCKER_HOST: 'ssh://host' cannot be used for engines*"),
    ],
)
def test_no_docker_is_one_sentence(
    pytester: pytest.Pytester, private_home: Path, monkeypatch: pytest.MonkeyPatch, host: str, sentence: str
) -> None:
    """With the cures, before anything starts."""
    put(private_home, raw_card())
    monkeypatch.setenv("DOCKER_HOST", host)
    pytester.makepyfile(test_mine=BENCHMARK)
    result = pytester.runpytest_subprocess(*flags("x", "m"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{sentence}"])

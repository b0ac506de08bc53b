"""Do kitt engines list, check and setup say what is here and what is to be done, whatever Docker says?"""

from __future__ import annotations

import contextlib
import http.server
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt.cli import complete
from pytest_kitt.engine.dockerd import Docker
from pytest_kitt.engine.image import Image
from pytest_kitt.engine.survey import lacks_disk
from pytest_kitt.hardware.platform import Platform
from tests.doubles.docker_api import docker_api

Asked = Callable[..., tuple[int, str, str]]
CPU_VLLM = "vllm/vllm-openai-cpu:v0.31.0-x86_64"


@contextlib.contextmanager
def docker(images: list[str], root: Path) -> Iterator[str]:
    """A daemon that has these images and nothing else to say; its address."""

    class Daemon(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """What is asked of it here."""
            told: dict[str, Any] = {
                "/version": {"Version": "29", "Arch": "amd64"},
                "/images/json": [{"RepoTags": images, "RepoDigests": None}],
                "/info": {"DockerRootDir": str(root)},
            }
            content = json.dumps(told.get(self.path, {"message": "no such page"})).encode()
            self.send_response(200 if self.path in told else 404)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Daemon) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no Docker, no program and no variable of the machine that these tests run on."""
    monkeypatch.setattr("pytest_kitt.hardware.platform.read", lambda: Platform("x86_64", "Linux"))
    monkeypatch.setattr("shutil.which", lambda _: None)
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")


def test_list_without_docker(ask: Asked) -> None:
    """It is no error: what is present is not known, and why."""
    code, out, err = ask("engines", "list")
    assert (code, err) == (0, "")
    (row,) = [line for line in out.splitlines() if line.startswith("vllm ")]
    assert CPU_VLLM in row
    assert " ?  " in row
    assert "container (protocol double), process (real server), compose, endpoint" in row
    assert "this machine: Linux x86_64, no GPU" in out
    assert "which images are present is not known: Docker is not there: no /nonexistent/docker.sock" in out


def test_list_with_docker(ask: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Present or not, for people and for programs."""
    with docker([CPU_VLLM, "ollama/ollama:latest"], tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        rows = {line.split()[0]: line for line in ask("engines", "list")[1].splitlines() if line}
        data = json.loads(ask("engines", "list", "--json")[1])
    assert f"{CPU_VLLM} " in rows["vllm"]
    assert "  yes  " in rows["vllm"]
    assert "  no  " in rows["ollama"].replace("no       ", "no  ")
    assert "none for this machine" in rows["exllamav2"]
    assert (data["schema"], data["docker"], data["platform"]["vendor"]) == (1, "", "none")
    engines = {engine["name"]: engine for engine in data["engines"]}
    assert engines["vllm"]["image"] == {
        "ref": CPU_VLLM,
        "origin": "platform",
        "why": "the project's image for CPUs",
        "dockerfile": None,
        "present": True,
    }
    assert engines["vllm"]["ways"]["container"] == {
        "proven": {"by": "protocol double", "version": "0.32.0"},
        "obstacle": "",
    }
    assert "needs the program vllm" in engines["vllm"]["ways"]["process"]["obstacle"]
    assert engines["exllamav2"]["image"] is None
    assert "prompt_logprobs" in engines["vllm"]["claims"]
    assert engines["openai"]["ways"] == {}


def test_check_says_what_to_do_of_each_way(ask: Asked) -> None:
    """Exit code 1 when no way can be gone."""
    code, out, _ = ask("engines", "check", "vllm")
    assert code == 1
    assert "container: Docker is not there: no /nonexistent/docker.sock; install or start it" in out
    assert "process: engine vllm needs the program vllm on the PATH: pip install vllm" in out
    assert "note: Tool calls need" in out


def test_check_of_an_engine_that_can_be_started(ask: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 0 when one way can, or the one that was meant."""
    with docker(["mine:1"], tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        code, out, _ = ask("engines", "check", "vllm", "--image", "mine:1")
        assert (code, "container: ready" in out, "image: mine:1 (--kitt-image)" in out) == (0, True, True)
        assert ask("engines", "check", "vllm", "--image", "mine:1", "--runtime", "process")[0] == 1
        assert ask("engines", "check", "vllm")[0] == 1
    assert ask("engines", "check", "simulated")[0] == 0
    code, out, _ = ask("engines", "check", "openai")
    assert (code, "--kitt-url=http://HOST:PORT" in out) == (0, True)


def test_a_card_that_is_not_valid_hides_no_other(ask: Asked, private_home: Path) -> None:
    """The good ones are listed; each bad one is a line with file, line and cure, and the exit code says so."""
    folder = private_home / "engines"
    folder.mkdir()
    (folder / "broken.yaml").write_text("name: [")
    (folder / "mine.yaml").write_text("name: mine\ndescription: of my own\n")
    (folder / "typo.yaml").write_text("name: typo\ndescription: d\nhelth: /h\n")
    (folder / "vllm.yaml").write_text("name: vlm\ndescription: d\n")
    (private_home / "engines.yaml").write_text("image_overrides: {vllm: 'mine:2'}")
    code, out, err = ask("engines", "list")
    listed = [line.split()[0] for line in out.splitlines() if line]
    assert (code, "mine" in listed, "tgi" in listed, "vllm" in listed) == (1, True, True, False)
    broken, typo, misnamed = err.splitlines()
    assert broken.startswith(f"kitt: {folder / 'broken.yaml'}:1: not valid YAML")
    assert typo.startswith(f"kitt: {folder / 'typo.yaml'}:3: unknown key 'helth'; did you mean 'health'?")
    assert misnamed == f"kitt: {folder / 'vllm.yaml'}:1: the card's name is 'vlm'; name the file vlm.yaml"
    code, out, err = ask("engines", "list", "--json")
    assert (code, [f"kitt: {sentence}" for sentence in json.loads(out)["not_valid"]]) == (1, err.splitlines())
    assert [name for name, _ in complete.engines("mi")] == ["mine"]
    assert ask("engines", "check", "simulated")[0] == 4  # as a session would


def test_the_users_file_of_images_counts(ask: Asked, private_home: Path) -> None:
    """With its name as the origin; a mistake in it is one sentence."""
    (private_home / "engines.yaml").write_text("image_overrides: {vllm: 'mine:2'}")
    assert "image: mine:2 (engines.yaml)" in ask("engines", "check", "vllm")[1]
    assert ask("engines", "setup", "vllm", "--dry-run")[1] == "docker pull mine:2\n"
    (private_home / "engines.yaml").write_text("image_overrides: {vlm: 'mine:2'}")
    code, _, err = ask("engines", "list")
    assert (code, "did you mean 'vllm'?" in err) == (4, True)


def test_setup_prints_the_exact_command(ask: Asked) -> None:
    """Pulled, built, or installed by the user; Docker need not be there for a dry run."""
    assert ask("engines", "setup", "vllm", "--dry-run") == (0, f"docker pull {CPU_VLLM}\n", "")
    code, out, _ = ask("engines", "setup", "llama_cpp", "--image", "kitt/llama-cpp:cpu", "--dry-run")
    assert code == 0
    assert out.startswith("docker build -t kitt/llama-cpp:cpu -f /")
    assert out.rstrip().endswith("/llama_cpp")
    code, out, _ = ask("engines", "setup", "transformers")
    assert (code, out.splitlines()[-1]) == (0, "pip install 'transformers[serving]' torch")
    assert ask("engines", "setup", "vllm", "--runtime", "process")[1].splitlines()[-1].startswith("pip install vllm")
    assert ask("engines", "setup", "simulated")[1] == "simulated as process: what it needs is here\n"


def test_setup_of_what_is_here(ask: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is pulled again."""
    with docker([CPU_VLLM], tmp_path) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        assert ask("engines", "setup", "vllm") == (0, f"{CPU_VLLM} is here\n", "")


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("check", "vlm"), "engine 'vlm' is unknown; did you mean 'vllm'?"),
        (("check", "nope"), "engine 'nope' is unknown; known: exllamav2, exllamav3, llama_cpp, mlx, ollama, openai, "),
        (("check", "tgi", "--runtime", "process"), "engine tgi is not started as 'process'; known: container"),
        (("setup", "openai"), "with --kitt-url"),
        (("setup", "exllamav2"), "it needs a GPU"),
        (("setup", "vllm"), "Docker is not there"),
    ],
)
def test_what_cannot_be_done(ask: Asked, words: tuple[str, ...], sentence: str) -> None:
    """Exit code 4 and one sentence."""
    code, out, err = ask("engines", *words)
    assert (code, out, sentence in err) == (4, "", True)
    assert err.count("\n") == 1


def test_an_image_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    """Told before it is pulled, where that can be known."""
    big, small = Image("big:1", "default", disk_gb=1e9), Image("small:1", "default", disk_gb=1e-9)
    with docker([], tmp_path) as address:
        assert lacks_disk(big, Docker(address)).startswith(f"image big:1 takes about 1e+09 GB, and {tmp_path} has ")
        assert not lacks_disk(small, Docker(address))
        assert not lacks_disk(Image("unknown:1", "default"), Docker(address))
    with docker([], tmp_path / "not here") as address:
        assert not lacks_disk(big, Docker(address))
    assert not lacks_disk(big, Docker("tcp://192.0.2.1:2375"))


def test_runtimes_complete() -> None:
    """On the tab key."""
    assert [name for name, _ in complete.runtimes("co")] == ["container", "compose"]


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_setup_shows_how_far_a_pull_is(
    ask: Asked, private_home: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """The bytes of all layers: a bar on a terminal, a line elsewhere; then what came."""
    layers = {"a": 6_000_000, "b": 34_000_000}
    said = [
        {"status": "Downloading", "id": name, "progressDetail": {"current": total // 2, "total": total}}
        for name, total in layers.items()
    ]
    (private_home / "engines").mkdir()
    (private_home / "engines" / "mine.yaml").write_text(
        "{name: mine, description: x, runtimes: {container: {command: [x]}}, images: [{image: 'example.org/mine:1'}]}"
    )
    monkeypatch.setenv("TERM", "xterm")
    with tempfile.TemporaryDirectory(prefix="kd") as folder, docker_api(Path(folder) / "d.sock", pull_says=said) as api:
        monkeypatch.setenv("DOCKER_HOST", api.address)
        if terminal:
            monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        code, out, err = ask("engines", "setup", "mine")
    assert (code, out) == (0, f"example.org/mine:1 is here: example.org/mine@sha256:{'b' * 64}\n")
    if terminal:
        assert "20.0/40.0 MB" in err
    else:
        assert err == "example.org/mine:1: 3 of 6 MB\n"

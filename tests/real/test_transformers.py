"""Does a session measure a real ``transformers serve``, on the CPU, with the tiny model? ``tox -e transformers``."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_kitt.engine import lease
from tests.real import sessions
from tests.real.sessions import family, lives, metrics, ran, session, stored, waits_until

pytestmark = [pytest.mark.real_transformers, pytest.mark.timeout(900)]

CPU = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
STARTED = ("--kitt-engine=transformers", "--kitt-runtime=process", "--kitt-engine-arg=device=cpu")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it needs to know here; it is found on the PATH."""
    for name, value in CPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that somebody else has started."""
    folder = tmp_path_factory.mktemp("transformers")
    argv = [str(Path(sys.executable).with_name("transformers")), "serve", str(tiny), "--device", "cpu"]
    with lease.port(folder) as port:
        argv += ["--host", "127.0.0.1", "--port", str(port)]
        with sessions.serving(argv, f"http://127.0.0.1:{port}", folder / "log", CPU) as url:
            yield url


def test_a_running_server_is_measured(server: str, tiny: Path, tmp_path: Path) -> None:
    """The quick suite by URL; the model must be named, as this server names none, and by its path."""
    arguments = ("--kitt-engine=transformers", f"--kitt-url={server}", f"--kitt-model={tiny}")
    code, output = ran(tmp_path, "--kitt-suite=quick", *arguments, "--kitt-inconclusive=xfail")
    assert code == pytest.ExitCode.OK, output
    for name, found in metrics(stored()).items():
        assert found["requests_failed.value"] == 0, name
        assert found["output_tps.value"] > 0, name
        assert found["ttft_ms.p50"] > 0, name


def test_a_running_server_answers(server: str, tiny: Path, tmp_path: Path) -> None:
    """Through the endpoint: exact answers, finish reasons, forced lengths, usage, streams that end without [DONE]."""
    arguments = ("--kitt-engine=transformers", f"--kitt-url={server}", f"--kitt-model={tiny}")
    code, output = ran(tmp_path, *arguments, inside="answers.py")
    assert code == pytest.ExitCode.OK, output


def test_started_measured_and_stopped(tiny: Path, tmp_path: Path) -> None:
    """As a process of ours: started once for all items, measured, and gone."""
    with session(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="answers.py") as running:
        assert running.ends() == pytest.ExitCode.OK, running.output
    for result in stored()["results"]:
        assert result["cell"]["runtime"] == "process"
        assert result["cell"]["model"]["format"] == "safetensors"
        assert "--device" in result["cell"]["argv"]


def test_killed_in_mid_load(tiny: Path, tmp_path: Path) -> None:
    """The item is an error that says so."""
    with session(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="long_load.py") as running:
        os.kill(running.engine(), signal.SIGKILL)
        code = running.ends()
    assert code == pytest.ExitCode.TESTS_FAILED, running.output
    assert [result["outcome"] for result in stored()["results"]] == ["passed", "error"], running.output
    assert "killed by signal 9" in running.output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_session_that_is_ended_leaves_nothing(tiny: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C and kill -9 of the session: what was measured is kept, no process is left."""
    with session(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="long_load.py") as running:
        members = family(running.engine())
        running.process.send_signal(how)
        code = running.ends()
    assert code == (-how if how == signal.SIGKILL else pytest.ExitCode.INTERRUPTED), running.output
    waits_until(lambda: not any(map(lives, members)), within_s=60)
    shown = stored()
    assert shown["run"]["status"] == "interrupted"
    assert shown["results"][0]["outcome"] == "passed"


def test_an_unknown_flag(tiny: Path, tmp_path: Path) -> None:
    """It is named, with what the server said."""
    wrong = "--kitt-engine-arg=--frobnicate=1"
    code, output = ran(tmp_path, *STARTED, wrong, f"--kitt-model={tiny}", inside="long_load.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "it refuses an argument" in output, output


def test_weights_cut_short(tiny: Path, tmp_path: Path) -> None:
    """They are refused before anything starts."""
    cut = sessions.cut_short(tiny, tmp_path / "cut")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={cut}", inside="long_load.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "model.safetensors is cut off" in output, output


def test_an_architecture_that_nobody_knows(tiny: Path, tmp_path: Path) -> None:
    """The class is the model's, and the log's last lines say why."""
    unheard_of = sessions.unheard_of(tiny, tmp_path / "unheard")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={unheard_of}", inside="long_load.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "it cannot load the model" in output, output
    assert "nosuch" in output.lower()


def test_a_port_that_is_taken(tiny: Path, tmp_path: Path) -> None:
    """A flag of the user's that names a port in use is the server's to refuse, and ours to name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flag = f"--kitt-engine-arg=--port={taken.getsockname()[1]}"
        code, output = ran(tmp_path, *STARTED, flag, f"--kitt-model={tiny}", inside="long_load.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "its port is taken" in output, output


def test_the_wrong_format(tmp_path: Path) -> None:
    """A GGUF file is refused before anything starts."""
    code, output = ran(tmp_path, *STARTED, "--kitt-model=tiny", inside="long_load.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "gguf" in output

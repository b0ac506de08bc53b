"""Does a session measure a real vLLM, on the CPU, with the tiny model? ``tox -e vllm``."""

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

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(1200)]

CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
SHARED = Path("/dev/shm")
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
ARGUMENTS = ("dtype=float32", "context=2048", "parallel=4", "--enforce-eager=")
STARTED = ("--kitt-engine=vllm", "--kitt-runtime=process", *(f"--kitt-engine-arg={each}" for each in ARGUMENTS))


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM needs to know here; it is found on the PATH."""
    for name, value in CPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(autouse=True)
def no_shared_memory_left() -> Iterator[None]:
    """What a vLLM that is killed with SIGKILL cannot give back, hundreds of megabytes of it, is removed."""
    there = set(SHARED.glob("psm_*"))
    yield
    for left in set(SHARED.glob("psm_*")) - there:
        left.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM that somebody else has started."""
    folder = tmp_path_factory.mktemp("vllm")
    argv = [str(Path(sys.executable).with_name("vllm")), "serve", str(tiny), "--served-model-name", "tiny"]
    argv += ["--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--max-num-seqs", "4"]
    with lease.port(folder) as port:
        argv += ["--host", "127.0.0.1", "--port", str(port)]
        with sessions.serving(argv, f"http://127.0.0.1:{port}", folder / "log", CPU | QUIET) as url:
            yield url


def test_a_running_server_is_measured(server: str, tmp_path: Path) -> None:
    """The quick suite by URL alone: the model and the version are the server's word, every number is there."""
    code, output = ran(tmp_path, "--kitt-suite=quick", "--kitt-engine=vllm", f"--kitt-url={server}")
    assert code == pytest.ExitCode.OK, output
    shown = stored()
    for result in shown["results"]:
        assert result["cell"]["engine_version"], output
        assert result["cell"]["model"]["name"] == "tiny"
    for name, found in metrics(shown).items():
        assert found["requests_failed.value"] == 0, name
        assert found["output_tps.value"] > 0, name
        assert found["ttft_ms.p50"] > 0, name


def test_a_running_server_answers(server: str, tmp_path: Path) -> None:
    """Through the endpoint: versions, exact answers, finish reasons, forced lengths, usage, streams."""
    code, output = ran(tmp_path, "--kitt-engine=vllm", f"--kitt-url={server}", inside="answers.py")
    assert code == pytest.ExitCode.OK, output


def test_what_vllm_adds(server: str, tmp_path: Path) -> None:
    """Through the endpoint: tokenize, context, log-probabilities of a prompt, and what is too long."""
    code, output = ran(tmp_path, "--kitt-engine=vllm", f"--kitt-url={server}", inside="vllm.py")
    assert code == pytest.ExitCode.OK, output


def test_started_measured_and_stopped(tiny: Path, tmp_path: Path) -> None:
    """As a process of ours: started once for all items, measured, and gone with its workers."""
    with session(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="answers.py") as running:
        assert running.ends() == pytest.ExitCode.OK, running.output
    shown = stored()
    assert "questions" in {result["benchmark"] for result in shown["results"]}
    cell = shown["results"][0]["cell"]
    assert cell["runtime"] == "process"
    assert cell["model"]["format"] == "safetensors"
    assert {"--dtype", "--max-model-len", "--enforce-eager"} <= set(cell["argv"])


def test_a_chat_template_without_bos(tiny: Path, tmp_path: Path) -> None:
    """None is added to a chat by vLLM: the drift is named by tests of its own and by the benchmark, and costs much."""
    bare = sessions.without_bos(tiny, tmp_path / "bare")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={bare}", inside="without_bos.py")
    assert code == pytest.ExitCode.OK, output
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={bare}", "--kitt-benchmark=chat_template")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "missing BOS: the prompt of a chat begins without a BOS ('<|begin|>')" in output


@pytest.mark.parametrize("victim", ["server", "worker"])
def test_killed_in_mid_load(tiny: Path, tmp_path: Path, victim: str) -> None:
    """Whichever of its processes is killed, the item is an error that says so, and the others are gone as well."""
    with session(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="long_load.py") as running:
        members = family(running.engine())
        assert len(members) > 2
        os.kill(members[0] if victim == "server" else members[-1], signal.SIGKILL)
        code = running.ends()
    assert code == pytest.ExitCode.TESTS_FAILED, running.output
    assert [result["outcome"] for result in stored()["results"]] == ["passed", "error"], running.output
    assert "vllm" in running.output
    waits_until(lambda: not any(map(lives, members)), within_s=30)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_is_ended_leaves_no_worker(tiny: Path, tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and kill -9 of the session: what was measured is kept, no process of vLLM is left."""
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
    """It is named, with what vLLM said."""
    code, output = ran(tmp_path, *STARTED, "--kitt-engine-arg=--frobnicate=1", f"--kitt-model={tiny}", inside="vllm.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "it refuses an argument" in output
    assert "unrecognized arguments: --frobnicate" in output


def test_weights_cut_short(tiny: Path, tmp_path: Path) -> None:
    """They are refused before anything starts."""
    cut = sessions.cut_short(tiny, tmp_path / "cut")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={cut}", inside="vllm.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "model.safetensors is cut off" in output, output


def test_an_architecture_that_nobody_knows(tiny: Path, tmp_path: Path) -> None:
    """The class is the model's, and the log's last lines say why."""
    unheard_of = sessions.unheard_of(tiny, tmp_path / "unheard")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={unheard_of}", inside="vllm.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "it cannot load the model" in output, output
    assert "nosuch" in output.lower()


def test_more_memory_than_there_is(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of a million GiB is refused within the start, as a lack of memory."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1000000")
    code, output = ran(tmp_path, *STARTED, f"--kitt-model={tiny}", inside="vllm.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "there is not enough memory" in output, output


def test_a_port_that_is_taken(tiny: Path, tmp_path: Path) -> None:
    """A flag of the user's that names a port in use is vLLM's to refuse, and ours to name."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flag = f"--kitt-engine-arg=--port={taken.getsockname()[1]}"
        code, output = ran(tmp_path, *STARTED, flag, f"--kitt-model={tiny}", inside="vllm.py")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "its port is taken" in output, output


def test_the_wrong_format(tmp_path: Path) -> None:
    """A GGUF file is refused before anything starts."""
    code, output = ran(tmp_path, *STARTED, "--kitt-model=tiny", inside="vllm.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "gguf" in output

"""Is whatever a user may get wrong one clear sentence: what, where, and the next step?"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import httpcore  # noqa: F401 - as below: httpx imports it late
import pytest

# imported here so that sessions within this process need not import them anew
import pytest_kitt.conduct
import pytest_kitt.control
import pytest_kitt.engine.runtime.endpoint
import pytest_kitt.store.recorder  # noqa: F401 - as said above
from pytest_kitt.cli import app
from pytest_kitt.hardware import identity
from pytest_kitt.measure.results import Run
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from pytest_kitt.store.writer import StoreWriter

USAGE = 4
ENGINE = "--kitt-engine=simulated"


@dataclasses.dataclass(frozen=True)
class Wrong:
    """One mistake.

    Attributes:
        args: of pytest, or of kitt.
        sentence: a pattern that the one sentence matches, from its first word on.
        files: by name, made before.
        env: variables, set before.

    """

    args: tuple[str, ...]
    sentence: str
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)


def wrong(*args: str, says: str, files: dict[str, str] | None = None, env: dict[str, str] | None = None) -> Wrong:
    """A mistake in as few words."""
    return Wrong(args, says, files or {}, env or {})


COMPOSED = "services: {vllm: {image: x}}"
YAML_IN_LINE_2 = "context: 1\nparallel: [2\n"
CARD_WITH_A_TYPO = "name: mine\ndescription: x\nruntimes: {process: {command: [a, '{modelname}']}}\n"
SESSIONS = {
    "engine": wrong(
        "--kitt-engine=lama_cpp", says=r"--kitt-engine: 'lama_cpp' is unknown; did you mean 'llama_cpp'\? known"
    ),
    "suite": wrong("--kitt-suite=qick", says=r"--kitt-suite: 'qick' is unknown; did you mean 'quick'\?"),
    "benchmark": wrong(
        "--kitt-benchmark=latncy", says=r"--kitt-benchmark: 'latncy' is unknown; did you mean 'latency'\?"
    ),
    "api": wrong("--kitt-api=chatt", says=r"--kitt-api: 'chatt' is unknown; did you mean 'chat'\?"),
    "number": wrong("--kitt-seed=x", says=r"--kitt-seed: 'x' is not a number"),
    "range": wrong("--kitt-restart=101", says=r"--kitt-restart: 101 is not between 0 and 100"),
    "clients": wrong("--kitt-clients=0", says=r"--kitt-clients: 0 is not between 1 and 64"),
    "seconds": wrong("--kitt-item-timeout=-1", says=r"--kitt-item-timeout: '-1' is not a positive number of seconds"),
    "switch": wrong(
        ENGINE,
        says=r"environment variable KITT_DRY_RUN: 'maybe' is neither yes nor no; say",
        env={"KITT_DRY_RUN": "maybe"},
    ),
    "ini": wrong(
        ENGINE,
        says=r"ini key kitt_api: 'chatt' is unknown; did you mean 'chat'",
        files={"pytest.ini": "[pytest]\nkitt_api = chatt"},
    ),
    "config key": wrong(
        ENGINE, says=r".*config\.yaml: unknown key 'sede'; did you mean 'seed'", files={"home:config.yaml": "sede: 3"}
    ),
    "config yaml": wrong(
        ENGINE,
        says=r".*config\.yaml:3: cannot be read as YAML: expected",
        files={"home:config.yaml": "seed: 3\napi: [a\n"},
    ),
    "card key": wrong(
        ENGINE,
        says=r".*mine\.yaml:\d: unknown key 'helth'; did you mean 'health'",
        files={"home:engines/mine.yaml": "name: mine\ndescription: x\nhelth: /h\n"},
    ),
    "card name": wrong(
        ENGINE,
        says=r".*mine\.yaml:\d: the card's name is 'yours'; name the file yours\.yaml",
        files={"home:engines/mine.yaml": "name: yours\ndescription: x\n"},
    ),
    "argument form": wrong(ENGINE, "--kitt-engine-arg=seed", says=r"--kitt-engine-arg: 'seed' is not KEY=VALUE"),
    "argument flag": wrong(
        ENGINE,
        "--kitt-engine-arg=--eager",
        says=r"--kitt-engine-arg: '--eager' is not KEY=VALUE; .* passed as '--eager='",
    ),
    "argument value": wrong(
        "--kitt-engine-arg=context=abc",
        says=r"--kitt-engine-arg: engine llama_cpp: context: 'abc' is not possible; expected: Tokens of context",
    ),
    "card placeholder": wrong(
        ENGINE,
        says=r".*mine\.yaml:\d: key 'runtimes\.process\.command\.1': unknown .*\{modelname\}; did you mean",
        files={"home:engines/mine.yaml": CARD_WITH_A_TYPO},
    ),
    "argument name": wrong(
        ENGINE,
        "--kitt-engine-arg=sede=1",
        says=r"--kitt-engine-arg: engine simulated has no argument 'sede'; did you mean 'seed'",
    ),
    "argument engine": wrong(
        ENGINE,
        "--kitt-engine-arg=vllm.seed=1",
        says=r"engine argument 'vllm\.seed': 'vllm' is not among the engines of this run",
    ),
    "engine config": wrong(
        ENGINE, "--kitt-engine-config=no.yaml", says=r"--kitt-engine-config: no\.yaml cannot be read: .*No such file"
    ),
    "engine config yaml": wrong(
        ENGINE,
        "--kitt-engine-config=e.yaml",
        says=r"--kitt-engine-config: e\.yaml:3: not valid YAML",
        files={"e.yaml": YAML_IN_LINE_2},
    ),
    "engine config list": wrong(
        ENGINE,
        "--kitt-engine-config=e.yaml",
        says=r"--kitt-engine-config: e\.yaml: expected a mapping, found list",
        files={"e.yaml": "- a"},
    ),
    "url": wrong(
        "--kitt-url=localhost:8000", says=r"--kitt-url: 'localhost:8000' is no address; expected http://HOST:PORT"
    ),
    "url password": wrong(
        "--kitt-url=http://me:hush@h:1", says=r"--kitt-url: leave name and password out of the URL; set KITT_API_KEY"
    ),
    "url unreachable": wrong(
        "--kitt-url=http://127.0.0.1:1",
        says=r"--kitt-url: http://127\.0\.0\.1:1 cannot be reached: .*; is the server up",
    ),
    "url and runtime": wrong(
        "--kitt-url=http://127.0.0.1:1",
        "--kitt-runtime=process",
        says=r"--kitt-url measures a server that already runs: drop --kitt-runtime=process",
    ),
    "url and engines": wrong(
        "--kitt-url=http://127.0.0.1:1",
        "--kitt-engine=vllm,openai",
        says=r"--kitt-url is one server: name one engine, not vllm, openai",
    ),
    "url and arguments": wrong(
        "--kitt-url=http://127.0.0.1:1",
        "--kitt-engine-arg=a=1",
        says=r"--kitt-url: a running server takes no engine arguments; drop",
    ),
    "compose": wrong("--kitt-compose=no.yaml", says=r"--kitt-compose: no\.yaml cannot be read: .*; check the path"),
    "compose yaml": wrong(
        "--kitt-compose=c.yaml",
        says=r"--kitt-compose: c\.yaml:3: not valid YAML",
        files={"c.yaml": YAML_IN_LINE_2},
    ),
    "service": wrong(
        "--kitt-compose=c.yaml",
        "--kitt-service=vlm",
        says=r"--kitt-service: c\.yaml has no service 'vlm'; did you mean 'vllm'",
        files={"c.yaml": COMPOSED},
    ),
    "compose and runtime": wrong(
        "--kitt-compose=c.yaml",
        "--kitt-runtime=process",
        says=r"--kitt-compose says how the engine is run: drop --kitt-runtime=process",
        files={"c.yaml": COMPOSED},
    ),
    "compose without docker": wrong(
        "--kitt-compose=c.yaml",
        says=r"(Docker is not there: no /nowhere/docker\.sock|--kitt-compose needs pytest-docker: pip install)",
        files={"c.yaml": COMPOSED},
        env={"DOCKER_HOST": "unix:///nowhere/docker.sock"},
    ),
    "runtime": wrong("--kitt-runtime=proces", says=r"--kitt-runtime: 'proces' is unknown; did you mean 'process'"),
    "image's engine": wrong(
        ENGINE, "--kitt-image=llamacpp=x", says=r"--kitt-image: engine 'llamacpp' is unknown; did you mean 'llama_cpp'"
    ),
    "image's words": wrong(ENGINE, "--kitt-image=BAD IMAGE", says=r"--kitt-image: 'BAD IMAGE' is not IMAGE or ENGINE"),
    "image's digest": wrong(ENGINE, "--kitt-image=x@sha256:12", says=r"--kitt-image: 'x@sha256:12' is not IMAGE or"),
    "no image": wrong(ENGINE, "--kitt-image==x", says=r"--kitt-image: '=x' is not IMAGE or ENGINE=IMAGE"),
    "runtime endpoint": wrong(
        "--kitt-runtime=endpoint", says=r"--kitt-runtime=endpoint needs --kitt-url=http://HOST:PORT"
    ),
    "runtime of engine": wrong(
        ENGINE,
        "--kitt-runtime=embedded",
        says=r"--kitt-runtime: engine simulated cannot run as embedded; it can as: process, compose, endpoint",
    ),
    "endpoint engine": wrong(
        "--kitt-engine=openai", says=r"engine openai is measured where it already runs: add --kitt-url=http://HOST:PORT"
    ),
    "model path": wrong(
        "--kitt-model=no.gguf", says=r"model 'no\.gguf': there is no such file or folder, .*check the path"
    ),
    "model file": wrong(
        "--kitt-model=m.gguf",
        says=r"model 'm\.gguf': m\.gguf is no GGUF file .*; expected a GGUF file",
        files={"m.gguf": "PK"},
    ),
    "key file": wrong(ENGINE, "--kitt-api-key-file=no", says=r"--kitt-api-key-file: no cannot be read: .*No such file"),
    "key folder": wrong(ENGINE, "--kitt-api-key-file=.", says=r"--kitt-api-key-file: \. cannot be read: .*directory"),
    "key words": wrong(
        ENGINE,
        "--kitt-api-key-file=key",
        says=r"--kitt-api-key-file: key holds no usable key; expected one line",
        files={"key": "hush hush"},
    ),
    "header": wrong(ENGINE, "--kitt-header=hush", says=r"--kitt-header: a header is 'Name: value' on one line"),
    "authority": wrong(
        "--kitt-url=https://127.0.0.1:1", "--kitt-ca-file=no.pem", says=r"--kitt-ca-file: no\.pem is no file"
    ),
    "prompts": wrong(
        ENGINE, "--kitt-prompts=no.jsonl", says=r"--kitt-prompts: no\.jsonl cannot be read: .*No such file"
    ),
    "store folder": wrong(
        ENGINE, "--kitt-db=.", says=r"--kitt-db: .* cannot be opened: .*; name another place with --kitt-db"
    ),
    "store file": wrong(
        ENGINE,
        "--kitt-db=x.db",
        says=r"--kitt-db: .*x\.db is no database of pytest-kitt: file is not a database",
        files={"x.db": "no database" * 99},
    ),
    "store kind": wrong(
        ENGINE, "--kitt-db=orcale://x", says=r"--kitt-db: orcale is no database that pytest-kitt knows"
    ),
    "store below a file": wrong(
        ENGINE, "--kitt-db=/dev/null/x.db", says=r"--kitt-db: /dev/null cannot be made: .*; name another place"
    ),
    "resume": wrong(
        ENGINE, "--kitt-resume=nope", says=r"--kitt-resume: there is no store yet, so nothing to go on with"
    ),
    "gpus": wrong(
        ENGINE,
        "--kitt-gpus=abc",
        "--kitt-cell-gpus=1",
        says=r"--kitt-gpus: 'abc' is no GPU; expected a number of GPUs, indices",
    ),
    "cell gpus": wrong(
        ENGINE, "--kitt-cell-gpus=a=b", says=r"--kitt-cell-gpus: 'a=b' is not N or CELL=N, a number of GPUs"
    ),
    "cell pattern": wrong(
        ENGINE, "--kitt-cell-gpus=no*=1", says=r"--kitt-cell-gpus: 'no\*' fits no cell; there are: simulated-simulated"
    ),
    "report": wrong(
        ENGINE, "--kitt-html=/dev/null/r.html", says=r"--kitt-html: /dev/null is no folder that can be written to"
    ),
    "kept on workers": wrong(
        ENGINE,
        "--kitt-keep-engine",
        "-n2",
        says=r"--kitt-keep-engine keeps one engine, and each worker has its own: leave out -n",
    ),
    "marker keyword": wrong(
        ENGINE,
        "test_m.py",
        says=r"test_m\.py::test_m.*: @pytest\.mark\.kitt has no keyword 'nam'; did you mean 'name'",
        files={"test_m.py": "import pytest\n@pytest.mark.kitt(nam='x')\ndef test_m(kitt_load): ..."},
    ),
    "marker value": wrong(
        ENGINE,
        "test_m.py",
        says=r"test_m\.py::test_m.*: @pytest\.mark\.kitt takes keywords alone: name, version",
        files={"test_m.py": "import pytest\n@pytest.mark.kitt('x')\ndef test_m(kitt_load): ..."},
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session(pytester: pytest.Pytester, private_home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A session that cannot be what was asked for ends before anything starts: exit code 4 and one sentence."""
    mistake = SESSIONS[name]
    for file, text in mistake.files.items():
        home = file.startswith("home:")
        path = (private_home if home else pytester.path) / file.removeprefix("home:")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for variable, value in mistake.env.items():
        monkeypatch.setenv(variable, value)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider", *mistake.args)
    assert done.ret == USAGE
    said = [line for line in done.errlines if line.strip()]
    assert len(said) == 1, said
    assert re.match(rf"ERROR: kitt: {mistake.sentence}", said[0]), said[0]
    assert "hush" not in done.stdout.str() + said[0]
    assert "Traceback" not in done.stdout.str()


LOADS = {
    "load": ("kitt_load('closd:8')", r"load 'closd:8' is unknown; did you mean 'closed'\?"),
    "number": ("kitt_load('closed:x')", r"'closed:x': 'x' is not a number, as in 'closed:8'"),
    "range": ("kitt_load('closed:0')", r"closed:0: concurrency lies between 1 and 20000"),
    "retries": ("kitt_load('closed:1', retries=101)", r"retries=101: a request is sent again between 0 and 100 times"),
    "schedule": (
        "kitt_load('poisson:5/s', retries=1)",
        r"retries=1: what is sent again is not on the schedule",
    ),
    "rate": ("kitt_load('poisson:0/s')", r"poisson:0/s: the rate lies above 0"),
    "second_number": ("kitt_load('gamma:3/s')", r"load 'gamma:3/s': gamma needs a coefficient of variation, as in"),
    "workload": (
        "kitt_load('closed:1', 'sintetic:8:8')",
        r"workload 'sintetic:8:8' is unknown; did you mean 'synthetic'",
    ),
    "lengths": (
        "kitt_load('closed:1', 'synthetic:8')",
        r"'synthetic:8': '' is not a number, as in 'synthetic:200:128'",
    ),
    "prompts": ("kitt_load('closed:1', 'prompts:no.txt')", r"prompts file no\.txt cannot be read: .*No such file"),
    "stop": (
        "kitt_load('closed:1', 'synthetic:8:8', 'request:3')",
        r"stop 'request:3' is unknown; did you mean 'requests'",
    ),
    "errors": (
        "kitt_load('closed:1', 'synthetic:8:8', 'requests:3,error:2%')",
        r"stop 'requests:3,error:2%': 'error:2%' is unknown; say",
    ),
    "argument": ("kitt_load(warmpu=1)", r"kitt_load: 'warmpu' is no argument; did you mean 'warmup'"),
    "warmup": ("kitt_load(warmup=-1)", r"warmup=-1: it is a number of requests, 0 for none"),
    "clients": ("kitt_load('closed:1', clients=2)", r"2 clients cannot share closed:1"),
    "api": ("kitt_load(api='chatt')", r"kitt_load: api 'chatt' is unknown; did you mean 'chat'"),
    "foreign_api": (
        "kitt_load(api='tgi')",
        r"kitt_load: engine simulated does not speak 'tgi'; it speaks: chat, completions",
    ),
    "metric": ("kitt_load('closed:1', 'synthetic:8:2', 'requests:2').tftt_ms", r".*'tftt_ms'.* did you mean 'ttft_ms'"),
    "statistic": ("kitt_load('closed:1', 'synthetic:8:2', 'requests:2').ttft_ms.p42", r".*p42.*"),
}


def test_inside_a_test(pytester: pytest.Pytester) -> None:
    """What a test gets wrong is an error of that test, in one sentence each, without a traceback."""
    pytester.makepyfile(
        test_loads="\n".join(f"def test_{name}(kitt_load):\n    {call}" for name, (call, _) in LOADS.items())
    )
    done = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", ENGINE, "--kitt-engine-arg=ttft_ms=1", "test_loads.py"
    )
    assert done.ret == 1
    done.assert_outcomes(errors=len(LOADS))
    text = done.stdout.str()
    assert "Traceback" not in text
    for name, (_, sentence) in LOADS.items():
        told = re.search(rf"_ ERROR .* of test_{name}\[.*\] _+\n(.*\n)(?=_|=)", text)
        assert told, name
        assert re.match(rf"(UserError|UnknownName): {sentence}", told[1]), told[1]


def stored(*ids: str, alive: str = "") -> None:
    """A store with runs of these ids, one of which a living process owns."""
    with opened("") as engine:
        writer = StoreWriter(engine)
        for run_id in ids:
            begun = Run(run_id, "2026-01-01T00:00:00.000Z", "quick", ("pytest",), "0", False, False, {"key": "k"})
            writer.start_run(begun)
            if run_id != alive:
                writer.finish_run(run_id, "passed", 0)
    assert identity.of_this_process()["pid"] == os.getpid()


COMMANDS: dict[str, Wrong] = {
    "command": wrong("rnu", says=r"no such command 'rnu' \(did you mean 'run'\?\); see kitt --help"),
    "subcommand": wrong(
        "results", "lsit", says=r"no such command 'lsit' \(did you mean 'list'\?\); see kitt results --help"
    ),
    "option": wrong(
        "run",
        "--modle",
        "x",
        says=r"no such option: --modle \(did you mean --model\?\); options of pytest go behind --; see kitt run --help",
    ),
    "pytest's option": wrong(
        "run", "--junitxml=x", says=r"no such option: --junitxml.*; options of pytest go behind --; see"
    ),
    "no value": wrong("run", "-m", says=r"option '-m' requires an argument"),
    "runs": wrong("run", "--runs", "0", says=r"invalid value for '--runs': .*1; see kitt run --help"),
    "no run": wrong("results", "show", says=r"missing argument 'RUN'; see kitt results show --help"),
    "unknown run": wrong(
        "results", "show", "nope", says=r"there is no run 'nope'; the latest are: .*\(kitt results list\)"
    ),
    "unclear run": wrong(
        "results", "show", "20260101", says=r"run '20260101' is not clear: 20260101-b, 20260101-a begin so; give more"
    ),
    "store": wrong(
        "results", "list", "--db", "no.db", says=r"there is no store at .*no\.db yet; .*name another with --db"
    ),
    "store in the environment": wrong(
        "results", "list", says=r"there is no store at .*no\.db yet", env={"KITT_DB": "no.db"}
    ),
    "store folder": wrong("results", "show", "last", "--db", ".", says=r"there is no store at .* yet; .*--db"),
    "store file": wrong(
        "results",
        "list",
        "--db",
        "x.db",
        says=r"--db: .*x\.db is no database of pytest-kitt",
        files={"x.db": "none" * 99},
    ),
    "status": wrong(
        "results", "list", "--status", "pased", says=r"--status: 'pased' is unknown; did you mean 'passed'"
    ),
    "since": wrong("results", "list", "--since", "yesterday", says=r"--since: 'yesterday' is no time; say 2026-01-31"),
    "limit": wrong("results", "list", "--limit", "0", says=r"invalid value for '--limit'"),
    "delete unasked": wrong(
        "results", "delete", "20260101-a", says=r"nobody can be asked whether to delete this run; say --yes"
    ),
    "delete unknown": wrong(
        "results", "delete", "20260101-a", "nope", "--yes", says=r"there is no run 'nope'; the latest are"
    ),
    "delete running": wrong(
        "results",
        "delete",
        "20260101-b",
        "--yes",
        says=r"run 20260101-b is still running; wait for its end, or delete it with --force",
    ),
    "category": wrong(
        "test", "new", "x", "-c", "qualty", says=r"--category: 'qualty' is unknown; did you mean 'quality'"
    ),
    "name": wrong("test", "new", "My-bench", says=r"'My-bench' is no name for a benchmark: .*, as in 'my_bench'"),
    "keyword": wrong("test", "new", "class", says=r"'class' is no name for a benchmark"),
    "models": wrong("models", "list", "nothere", says=r"nothere is no folder; name one that holds models"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A command that cannot be understood or done says why on stderr: exit code 4 and one sentence."""
    mistake = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    stored("20260101-a", "20260101-b", alive="20260101-b")
    for file, text in mistake.files.items():
        (tmp_path / file).write_text(text)
    for variable, value in mistake.env.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        app.main(mistake.args)
    assert ended.value.code == USAGE
    said = capsys.readouterr().err
    assert re.fullmatch(rf"kitt: {mistake.sentence}.*\n", said), said
    with opened("") as engine, engine.connect() as connection:
        assert len(reader.list_runs(connection)) == 2


def test_the_tables_are_long_enough() -> None:
    """Forty mistakes at the least."""
    assert len(SESSIONS) + len(LOADS) + len(COMMANDS) >= 40

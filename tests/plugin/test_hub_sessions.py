"""Does a session fetch a model of the hub when its engine is about to start, and not before? Real sessions, our hub."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kitt import shipped
from tests.fake_hub import COMMIT, FakeHub, served

pytest.importorskip("huggingface_hub")
pytest.importorskip("xllamacpp")

MODEL = "--kitt-model=hf:org/tiny-GGUF:F16"
TESTS = """
def test_one(kitt_engine):
    assert len(kitt_engine.tokenize("1+1=")) >= 4

def test_two(kitt_engine):
    assert kitt_engine.cell.model.name == "tiny-GGUF-F16"
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> Iterator[FakeHub]:
    """A hub that has the tiny model, an empty cache, and a test module."""
    pytester.makepyfile(test_them=TESTS)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with served({"org/tiny-GGUF": {"tiny-F16.gguf": shipped.TINY_MODEL.read_bytes()}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "test_them.py", *args)


def test_a_model_of_the_hub(
    fake: FakeHub, pytester: pytest.Pytester, kitt: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Planned without the hub; fetched once, told, stored with its commit; then from the cache; exports stay equal."""
    for inert in ("--collect-only", "--kitt-dry-run"):
        planned = run(pytester, MODEL, inert)
        assert planned.ret == 0
        assert "llama_cpp-tiny-GGUF-F16" in planned.stdout.str()
    assert fake.asked == []
    result = run(pytester, MODEL)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*llama_cpp-tiny-GGUF-F16 downloads 1.2 MB of org/tiny-GGUF:F16 from the hub to *"])
    fake.asked.clear()
    run(pytester, MODEL).assert_outcomes(passed=2)
    assert fake.asked == []
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    other = f"--db={tmp_path / 'other.db'}"
    assert kitt("results", "export", "last", "--format=json", "-o", str(first)).returncode == 0
    assert kitt("results", "import", str(first), other).returncode == 0
    assert kitt("results", "export", "last", "--format=json", "-o", str(second), other).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    (cell,) = json.loads(first.read_bytes())["cells"]
    model = cell["model"]
    assert (model["ref"], model["revision"]) == ("org/tiny-GGUF:F16", f"org/tiny-GGUF@{COMMIT}")
    assert (model["size_bytes"], model["context"], model["parameters"]) == (1_174_688, 4096, 583_040)
    assert cell["toy"]
    shown = json.loads(kitt("models", "show", "hf:org/tiny-GGUF:F16", "--json").stdout)
    assert {**shown["model"], "path": None} == {**model, "path": None}
    assert shown["needs"] == {"context": 4096, "parallel": 1, "weights_bytes": 1_174_688, "kv_bytes": 2 * 384 * 4096}
    absent = kitt("models", "show", "hf:org/none")
    assert absent.returncode == 4
    assert "is not on this machine, so that nothing is known of it; a run fetches it" in absent.stderr


def test_a_refusal_is_one_error(fake: FakeHub, pytester: pytest.Pytester) -> None:
    """The first item of the cell is an error with the sentence, the others skip; no engine, no log."""
    fake.gated = ("org/tiny-GGUF",)
    result = run(pytester, MODEL)
    assert result.ret == 1
    result.assert_outcomes(errors=1, skipped=1)
    result.stdout.fnmatch_lines(["*EngineStartError*model 'org/tiny-GGUF:F16' is gated; ask for access on its page*"])


def test_without_the_library_nothing_starts(fake: FakeHub, pytester: pytest.Pytester) -> None:
    """One sentence and exit code 4 where no other cell is left; a model of the cache needs no library."""
    without = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'huggingface_hub' else find(name, *a)\n"
    )
    library = pytester.makepyfile(sitecustomize=without)
    sentence = "*model 'org/tiny-GGUF:F16' is not in the cache, and to download it needs the package huggingface_hub: *"
    tried = ((MODEL,), (MODEL, "--kitt-dry-run"), (f"{MODEL},tiny",))
    alone, planned, beside = (run(pytester, *args) for args in tried)
    assert (alone.ret, planned.ret, beside.ret) == (4, 4, 1)
    alone.stderr.fnmatch_lines([f"ERROR: kitt: {sentence}pip install 'pytest-kitt[[]hub]'"])
    planned.stdout.fnmatch_lines([f"llama_cpp-tiny-GGUF-F16 *CANNOT START: {sentence}"])
    beside.assert_outcomes(passed=1, failed=1, errors=1, skipped=1)
    assert fake.asked == []
    library.unlink()
    run(pytester, MODEL).assert_outcomes(passed=2)
    library.write_text(without)
    run(pytester, MODEL).assert_outcomes(passed=2)


def test_workers_fetch_it_too(fake: FakeHub, pytester: pytest.Pytester) -> None:
    """In a worker of pytest-xdist it is the same, the words come through its controller."""
    pytest.importorskip("xdist")
    result = run(pytester, MODEL, "-n1")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*gw0: llama_cpp-tiny-GGUF-F16 downloads 1.2 MB of org/tiny-GGUF:F16*"])
    assert len([asked for asked in fake.transfers("tiny-F16.gguf") if asked.method == "GET"]) == 1


def test_what_does_not_fit_is_told_before(pytester: pytest.Pytester) -> None:
    """A context whose cache no machine has: one sentence before anything starts; --kitt-force tries it."""
    pytester.makepyfile(test_them=TESTS)
    args = ("--kitt-model=tiny", "--kitt-engine-arg=context=99999999999")
    result = run(pytester, *args, "--collect-only")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*llama_cpp-tiny needs at least * GB of memory (* of cache for 99999999999 tokens)*"])
    assert run(pytester, *args, "--collect-only", "--kitt-force").ret == 0

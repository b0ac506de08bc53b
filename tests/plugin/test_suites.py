"""Do the shipped benchmarks find what they are to find? Whole sessions against an engine whose truth is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.truth.server import available, running
from pytest_kitt import shipped
from pytest_kitt.evals.card import shipped_names
from pytest_kitt.selection import load_suites
from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tools.benchmark_pages import pages

needs_truth = pytest.mark.skipif(not available(), reason="needs gcc to build the truth server")
SUITES = load_suites([shipped.SUITES])
VARIANTS = {page.name: [variant.label for variant in page.variants] for page in pages()}


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def simulated(pytester: pytest.Pytester, benchmarks: str, **arguments: float) -> pytest.RunResult:
    """A session of some benchmarks on the simulated engine."""
    given = [f"--kitt-engine-arg={name}={value}" for name, value in arguments.items()]
    return run(pytester, "--kitt-engine=simulated", f"--kitt-benchmark={benchmarks}", *given)


def stored() -> dict[str, dict[str, Any]]:
    """The results of the last run by what the table calls them, their metrics as ``name.stat``."""
    with opened("") as engine, engine.connect() as connection:
        results = reader.show_run(connection, "last")["results"]
    found = {}
    for result in results:
        variant = re.search(r"-(\w+)\]$", result["nodeid"].replace("[simulated-simulated", "["))
        name = f"{result['benchmark']}[{variant[1]}]" if variant else result["benchmark"]
        found[name] = {**result, "values": {f"{m['name']}.{m['stat']}": m["value"] for m in result["metrics"]}}
    return found


@pytest.mark.parametrize("suite", list(SUITES))
def test_a_suite_collects_what_its_page_says(pytester: pytest.Pytester, suite: str) -> None:
    """The items of a suite are the documented variants of the benchmarks that it names, and no others."""
    listed = run(pytester, f"--kitt-suite={suite}", "--kitt-engine=simulated", "--collect-only", "-q")
    items = re.findall(r"::test_(\w+)\[simulated-simulated-?([\w.+-]*)\]", listed.stdout.str())
    labels = sorted(f"{name}[{variant}]" if variant else name for name, variant in items)
    wanted = [label for name in SUITES[suite].benchmarks for label in VARIANTS.get(name, [name])]
    assert labels == sorted(wanted)
    assert set(wanted) <= {label for labels in VARIANTS.values() for label in labels}


def test_the_quick_suite_has_the_keys_that_it_had(pytester: pytest.Pytester) -> None:
    """What was measured before can be compared: names, versions and parameters of quick stay."""
    pytester.makeconftest(
        """
        from pytest_kitt.benchmark import benchmark_of
        def pytest_collection_finish(session):
            for item in session.items:
                found = benchmark_of(item)
                print("KEY", found.name, found.version, dict(found.params))
        """
    )
    listed = run(pytester, "--kitt-suite=quick", "--kitt-engine=simulated", "--collect-only", "-q", "-s")
    assert [line for line in listed.stdout.lines if line.startswith("KEY")] == [
        "KEY latency 1 {}",
        "KEY throughput 1 {'concurrency': 2}",
        "KEY throughput 1 {'concurrency': 8}",
        "KEY exact_match 1 {}",
    ]


def test_a_variant_is_named_like_a_benchmark(pytester: pytest.Pytester) -> None:
    """--kitt-benchmark takes one variant; one that does not exist is a sentence, on the command line and in a suite."""
    listed = run(pytester, "--kitt-engine=simulated", "--kitt-benchmark=throughput[c16]", "--collect-only", "-q")
    assert re.findall(r"::(\S+)", listed.stdout.str()) == ["test_throughput[simulated-simulated-c16]"]
    wrong = run(pytester, "--kitt-engine=simulated", "--kitt-benchmark=throughput[c3]", "--collect-only")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--kitt-benchmark: 'throughput[[]c3]' is unknown; did you mean 'throughput*"])
    folder = pytester.mkdir("theirs")
    (folder / "suites.yaml").write_text("theirs: {description: d, benchmarks: [latency, greetin]}")
    (folder / "test_theirs.py").write_text("def test_greeting(kitt_engine):\n    pass")
    pytester.makepyfile(plug=f"import pathlib\ndef pytest_kitt_suites():\n    return pathlib.Path({str(folder)!r})")
    pytester.syspathinsert()
    named = run(pytester, "-p", "plug", "--kitt-suite=theirs", "--kitt-engine=simulated", "--collect-only")
    assert named.ret == pytest.ExitCode.USAGE_ERROR
    named.stderr.fnmatch_lines(
        ["*suites.yaml: suite 'theirs': there is no benchmark 'greetin'; did you mean 'greeting'*"]
    )


def test_one_stream(pytester: pytest.Pytester) -> None:
    """TTFT and ITL are the engine's; the prefill's pace follows from them; what its context cannot hold is skipped."""
    result = simulated(
        pytester, "latency,latency_by_prompt,long_context", ttft_ms=20, itl_ms=0.5, context=1024, max_concurrent=1
    )
    result.assert_outcomes(passed=4, skipped=9)
    found = stored()
    for name in ("latency", "latency_by_prompt[p512]", "long_context[p512]"):
        values = found[name]["values"]
        assert 20 <= values["ttft_ms.min"] <= values["ttft_ms.p50"] < 500
    assert found["latency"]["values"]["e2e_ms.min"] >= 20 + 63 * 0.5
    long = found["long_context[p512]"]["values"]
    assert 512 <= long["isl.min"] <= 512 * 1.02 + 256
    assert long["prefill_tps.value"] == pytest.approx(long["isl.mean"] / long["ttft_ms.p50"] * 1000)
    assert found["latency_by_prompt[p2048]"]["outcome"] == "skipped"
    assert found["latency_by_prompt[p2048]"]["reason"] == "2112 tokens are too many: the engine's context is 1024"
    assert found["long_context[p1024]"]["reason"] == "1040 tokens are too many: the engine's context is 1024"


def test_many_streams(pytester: pytest.Pytester) -> None:
    """With 8 slots of 83 ms there are 96 requests/s at most, and a batch of 128 takes 16 rounds."""
    result = simulated(pytester, "latency_under_load[u50],batch", ttft_ms=20, itl_ms=1, max_concurrent=8)
    result.assert_outcomes(passed=2)
    found = stored()
    load = found["latency_under_load[u50]"]
    capacity = load["values"]["capacity_rps.value"]
    assert 0 < capacity < 8 / 0.083 * 1.05
    assert load["params"]["rate_rps"] == pytest.approx(capacity / 2, rel=1e-3)
    assert 0.8 <= load["values"]["pace_kept_share.value"] <= 1
    assert load["values"]["ttft_ms.min"] >= 20
    batch = found["batch"]["values"]
    assert batch["makespan_s.value"] >= 16 * 0.083
    assert batch["output_tps.value"] == pytest.approx(128 * 64 / batch["makespan_s.value"])
    assert batch["batch_tps.value"] == pytest.approx(128 * (64 + batch["isl.mean"]) / batch["makespan_s.value"])
    assert found["batch"]["params"]["certificate"]["in_flight_mean"] > 100


def test_determinism(pytester: pytest.Pytester) -> None:
    """The simulated engine answers the same each time, alone and together, at full length."""
    simulated(pytester, "determinism", ttft_ms=5, itl_ms=0.2).assert_outcomes(passed=1)
    found = stored()["determinism"]
    assert found["values"]["identical_alone.value"] == found["values"]["identical_together.value"] == 1
    assert found["values"]["together.osl.min"] == 128
    assert {m["n"] for m in found["metrics"] if m["name"].startswith("identical")} == {20}
    assert not [name for name in found["values"] if "difference" in name]


def test_a_failing_engine_fails_every_benchmark(pytester: pytest.Pytester) -> None:
    """A third of the requests is refused: no benchmark of speed passes, and each says how many failed, and why."""
    # of accuracy, with questions to be had first; and one that takes half a minute to say the same
    others = ("exact_match", "consistency", "chat_template", *shipped_names(), "memory")
    first = [labels[0] for name, labels in VARIANTS.items() if name not in others]
    result = simulated(pytester, ",".join(first), ttft_ms=1, itl_ms=0, error_rate=0.3)
    found = stored()
    assert {name: entry["outcome"] for name, entry in found.items()} == dict.fromkeys(first, "failed")
    for entry in found.values():
        assert re.search(r"\d+ of \d+ requests failed \(\d+ of HTTP_STATUS\); HTTP_STATUS 500: Inj", entry["reason"])
    result.assert_outcomes(failed=len(first))


@needs_truth
def test_bundled_tokens_have_no_smoothness(pytester: pytest.Pytester) -> None:
    """Eight tokens in one chunk: the benchmark says so, and records no smoothness."""
    with running("--ttft-ms", "1", "--itl-ms", "0.2", "--fault", "merge:8") as server:
        result = run(pytester, f"--kitt-url={server.url}", "--kitt-benchmark=smoothness[c8]")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the server sends tokens together (1 per event, 8?% of the events in one chunk*"])
    ((_, found),) = stored().items()
    assert found["outcome"] == "invalid"
    assert found["values"]["bundled_share.value"] > 0.8
    assert "itl_p99_ratio.value" not in found["values"]


def test_every_module_has_its_page() -> None:
    """No benchmark is shipped without a page, and each says how it measures and what passes."""
    modules = [path for path in shipped.SUITES.rglob("test_*.py") if isinstance(path, Path)]
    found = pages()
    assert len({page.module for page in found}) == len(modules)
    for page in found:
        assert "\nHow: " in page.text, page.name
        assert "\nPasses: " in page.text, page.name
        assert all(variant.requests and variant.seconds for variant in page.variants), page.name

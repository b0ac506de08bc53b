"""Does a session compare the answers of its cells, and does --kitt-consistency judge them?"""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from pytest_kitt import shipped
from pytest_kitt.cli.app import app
from pytest_kitt.store import reader
from pytest_kitt.store.database import read_only
from tests.quantized import to_q4_0

SIMULATED = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=1", "--kitt-engine-arg=itl_ms=0")

UNSTEADY = """
import itertools, json, pathlib

CARD = {
    "name": "unsteady", "summary": "Its filter changes from run to run", "dataset": {"path": "two.jsonl"},
    "prompt": "{{ question }}", "answer": "question", "mode": "generate", "metrics": [{"metric": "exact_match"}],
}
runs = itertools.count()

def test_unsteady(kitt_evaluate):
    pathlib.Path("two.jsonl").write_text('{"question": "one"}\\n{"question": "two"}\\n')
    steps = [{"filter": "remove", "pattern": "^.{%d}" % next(runs)}]
    pathlib.Path("unsteady.kitt.yaml").write_text(json.dumps(CARD | {"filters": {"": steps}}))
    kitt_evaluate("unsteady.kitt.yaml")
"""


def stored() -> dict[str, Any]:
    """The last run."""
    with read_only("") as connection:
        return dict(reader.show_run(connection, "last")["run"])


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_levels_of_concurrency_agree(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """The simulated engine answers alike however many ask; the table says so, and the demand is met."""
    result = pytester.runpytest_subprocess(
        *SIMULATED,
        "--kitt-suite=consistency",
        "--kitt-consistency=1",
        "--kitt-html=r.html",
        "--kitt-output=out",
        *workers,
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*= kitt consistency =*",
            "consistency * right  questions  lost  gained  McNemar p * difference  with 1  with 2",
            "1 simulated-simulated c1  100.0 %        150                reference * 100 %   100 %",
            "2 simulated-simulated c8  100.0 %        150     0       0          1  +0.0 % ?-1.3 to +1.3 %?   100 % *",
        ]
    )
    assert result.ret == 0
    assert "Do the answers agree?" in (pytester.path / "r.html").read_text()
    found = json.loads((pytester.path / "out" / "metrics.json").read_text())
    schema = json.loads((shipped.SCHEMAS / "metrics.schema.json").read_bytes())
    jsonschema.validate(found, schema, cls=jsonschema.Draft202012Validator)
    ((pair,),) = [matrix["pairs"] for matrix in found["agreements"]]
    assert (pair["n"], pair["agreement"], pair["lost"], pair["gained"], pair["p_value"]) == (150, 1, 0, 0, 1)
    assert "Do the answers agree?" in (pytester.path / "out" / "summary.md").read_text()
    told = CliRunner().invoke(app, ["results", "show", "last"]).output
    assert re.search(r"^2 simulated-simulated c8 +100.0 % +150 +0 +0 +1 .* 100 % +100 %$", told, re.MULTILINE)


def test_runs_agree_or_do_not(pytester: pytest.Pytester) -> None:
    """Repeats of one benchmark are sets like any other; those that answer differently fail the session."""
    repeated = (*SIMULATED, "--kitt-benchmark=exact_match", "--kitt-runs=2", "--kitt-consistency=0.98")
    result = pytester.runpytest_subprocess(*repeated)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 simulated-simulated run1 *reference*", "2 simulated-simulated run2 *100 %*"])
    assert result.ret == 0
    pytester.makepyfile(test_unsteady=UNSTEADY)
    result = pytester.runpytest_subprocess(*SIMULATED, "--kitt-runs=3", "--kitt-consistency=0.98", "test_unsteady.py")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["kitt: --kitt-consistency: *run2 answers 0 of 2 questions of unsteady as *run1 does*"])
    assert result.ret == 1


def test_a_quantization_shows(pytester: pytest.Pytester) -> None:
    """The tiny model with four bits a weight: the flips stand in the matrix, and fail the session that allows few."""
    pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")
    whole, coarse = pytester.path / "whole.gguf", pytester.path / "coarse.gguf"
    whole.write_bytes(shipped.TINY_MODEL.read_bytes())
    to_q4_0(shipped.TINY_MODEL, coarse)
    result = pytester.runpytest_subprocess(
        "--kitt-suite=consistency",
        "--kitt-engine=llama_cpp",
        "--kitt-runtime=embedded",
        "--kitt-engine-arg=threads=1",
        f"--kitt-model={whole},{coarse}",
        "--kitt-consistency=0.98",
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "1 llama_cpp-whole c1 *reference*",
            "2 llama_cpp-whole c8 *",
            "3 llama_cpp-coarse c1 *",
            "4 llama_cpp-coarse c8 *",
            "kitt: --kitt-consistency: llama_cpp-coarse c1 answers * of 150 questions * as llama_cpp-whole c1*",
            "kitt: --kitt-consistency: llama_cpp-coarse c8 answers *",
        ]
    )
    assert "kitt-consistency: llama_cpp-whole" not in result.stdout.str()
    assert result.ret == 1
    assert stored()["status"] == "failed"
    assert stored()["exit_status"] == 1


def test_nothing_to_compare_is_no_pass(pytester: pytest.Pytester) -> None:
    """One set of answers cannot agree with anything: without the demand that is fine, with it the session fails."""
    result = pytester.runpytest_subprocess(*SIMULATED, "--kitt-benchmark=exact_match")
    assert result.ret == 0
    assert "kitt consistency" not in result.stdout.str()
    result = pytester.runpytest_subprocess(*SIMULATED, "--kitt-benchmark=exact_match", "--kitt-consistency=0.9")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["kitt: --kitt-consistency: there are no two sets of answers to the same questions"])
    assert result.ret == 1


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "x"])
def test_a_demand_that_makes_no_sense(pytester: pytest.Pytester, share: str) -> None:
    """One sentence, before anything starts."""
    result = pytester.runpytest_subprocess(*SIMULATED, f"--kitt-consistency={share}")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--kitt-consistency*"])

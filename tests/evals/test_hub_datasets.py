"""Does Hugging Face's own library give the rows that a card names, and no others? With a hub of ours, and without one.

Where that library is installed: ``tox -e parity``.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytest_kitt.store import reader
from pytest_kitt.store.database import opened
from tests import fake_hub

pytest.importorskip("datasets.config", reason="needs pytest-kitt[datasets]")  # our own folder has no such module

CARD = """
name: {name}
summary: Questions on a hub
dataset: {{id: somebody/questions, revision: "{revision}"}}
prompt: "{{{{ question }}}}"
answer: answer
mode: generate
max_tokens: 8
metrics: [{{metric: exact_match}}]
"""
ROWS = "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(5))


def results() -> dict[str, dict[str, Any]]:
    """Those of the last run, by evaluation."""
    with opened("") as engine, engine.connect() as connection:
        return {one["benchmark"]: one for one in reader.show_run(connection, "last")["results"]}


@pytest.mark.timeout(120)
def test_what_the_cache_has_is_asked_offline_and_no_other_revision(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows from the hub and from the cache, which gives no other revision for one that it lacks."""
    for name, revision in (("right", fake_hub.COMMIT), ("other", "1" * 40)):
        (pytester.path / f"{name}.kitt.yaml").write_text(CARD.format(name=name, revision=revision))
    monkeypatch.setenv("HF_HOME", str(pytester.path / "hf"))
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    fast = ("-p", "no:cacheprovider", "-W", "default", "--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=1")
    with fake_hub.served({"somebody/questions": {"test.jsonl": ROWS.encode()}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        pytester.runpytest_subprocess(*fast, "right.kitt.yaml").assert_outcomes(passed=1)
        fresh = results()["right"]["params"]
        before = len(hub.asked)
        done = pytester.runpytest_subprocess(*fast, "--kitt-offline", "right.kitt.yaml", "other.kitt.yaml")
        assert len(hub.asked) == before
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines(
        ["*UserError: other: dataset somebody/questions (default, test) at revision 111111111111 *"]
    )
    done.stdout.fnmatch_lines(["*the cache has it at revision 0123456789ab alone*"])
    cached = results()["right"]["params"]
    assert (fresh["data"], fresh["questions"], fresh["data_revision"]) == ("hub", 5, fake_hub.COMMIT)
    assert cached["data_sha256"] == fresh["data_sha256"]
    assert (cached["data"], cached["questions"]) == ("hub", 5)

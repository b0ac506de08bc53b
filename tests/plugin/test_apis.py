"""Is an engine measured in the API that was asked for? llama.cpp's own server, in its own tongue."""

from __future__ import annotations

import pytest

SPEAKS = """
def test_it(kitt_engine, kitt_load):
    found = kitt_engine.generate("12+34=", max_tokens=4, api="llama-cpp", logprobs=2, token_ids=True, ignore_eos=True)
    assert (found.finish_reason, found.server_finish_reason) == ("length", "limit")
    assert found.completion_tokens == len(found.token_ids) == len(found.logprobs) == 4
    assert [entry.token_id for entry in found.logprobs] == list(found.token_ids)
    assert all(entry.logprob < 0 and len(entry.top) == 2 for entry in found.logprobs)
    plain = kitt_engine.generate("12+34=", max_tokens=4, ignore_eos=True)
    assert (plain.output, plain.prompt_tokens) == (found.output, found.prompt_tokens)
    assert (plain.logprobs, plain.token_ids, plain.tool_calls, plain.reasoning) == (None, None, None, None)
    assert "".join(kitt_engine.stream("12+34=", max_tokens=4, api="llama-cpp", ignore_eos=True)) == found.output
    other = kitt_engine.generate("12+34=", max_tokens=4, logprobs=2, token_ids=True, ignore_eos=True)
    assert other.token_ids == found.token_ids
    assert all(abs(a.logprob - b.logprob) < 0.001 for a, b in zip(other.logprobs, found.logprobs, strict=True))
    likely = kitt_engine.chat("12+34=", max_tokens=4, logprobs=1)
    assert likely.logprobs[0].logprob < 0
    result = kitt_load("closed:2", "synthetic:16:8", "requests:6")
    assert (result.failed, result.isl.min, result.osl.max) == (0, 16, 8)
    assert result.params["api"] == "llama-cpp"
    assert result.params["tokens_counted_by"] == "usage"
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """A session in a process of its own."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)


def test_llama_in_its_own_tongue(pytester: pytest.Pytester) -> None:
    """The same tokens and probabilities as in OpenAI's, by the real server; a load of exact lengths."""
    pytester.makepyfile(test_it=SPEAKS)
    run(pytester, "--kitt-api=llama-cpp", "test_it.py").assert_outcomes(passed=1)


def test_an_api_that_the_engine_does_not_speak(pytester: pytest.Pytester) -> None:
    """One sentence that names those it does."""
    pytester.makepyfile(test_it="def test_it(kitt_engine): pass")
    result = run(pytester, "--kitt-engine=simulated", "--kitt-api=tgi", "test_it.py")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--kitt-api: engine simulated does not speak 'tgi'; it speaks: chat, completions*"])


def test_a_load_in_another_api(pytester: pytest.Pytester) -> None:
    """A test may name its own, as far as the engine speaks it."""
    pytester.makepyfile(
        test_it="""
def test_native(kitt_load):
    assert kitt_load("closed:1", "synthetic:8:4", "requests:2", api="llama-cpp").failed == 0

def test_wrong(kitt_load):
    kitt_load("closed:1", "synthetic:8:4", "requests:2", api="tgi")
"""
    )
    result = run(pytester, "test_it.py")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*kitt_load: engine llama_cpp does not speak 'tgi'; it speaks: chat, *"])

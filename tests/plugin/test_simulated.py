"""What does a session see of the simulated engine? Its features through the fixtures, and its arguments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pytest_kitt import cards
from pytest_kitt.engine.simulated import arguments, profile
from pytest_kitt.engine.simulated.distribution import Constant, Normal

FAST = ("--kitt-engine=simulated", "--kitt-engine-arg=ttft_ms=20", "--kitt-engine-arg=itl_ms=4")


def run(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """A session in a process of its own, on one file."""
    pytester.makepyfile(test_it=test)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *FAST, *options, "test_it.py")


def test_bundled_tokens_are_told(pytester: pytest.Pytester) -> None:
    """Tokens in one event: so many per event, counted by the usage. Events in one write: not certified."""
    test = """
        def test_it(kitt_load):
            result = kitt_load("closed:2", "synthetic:16:32", "requests:20", api="completions")
            print(f"{result.tokens_per_event.p50:g} in an event, {result.osl.max:g} in all, {result.itl_ms.n} gaps")
    """
    result = run(pytester, test, "-s", "--kitt-engine-arg=bundle=4")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*4 in an event, 32 in all, 140 gaps"])
    refused = run(pytester, test, "--kitt-engine-arg=write_events=4", "--kitt-certify=require")
    refused.assert_outcomes(errors=1)
    refused.stdout.fnmatch_lines(["*in one chunk with the one before*"])


def test_reasoning_is_apart_from_the_answer(pytester: pytest.Pytester) -> None:
    """The first token is reasoning, the first of the answer comes as many gaps later."""
    test = """
        def test_it(kitt_load):
            result = kitt_load("closed:1", "synthetic:16:15", "requests:10", api="chat")
            assert result.ttft_ms.min >= 20
            assert result.ttfo_ms.min >= 20 + 10 * 4
            assert (result.osl.min, result.osl.max) == (15, 15)
            assert result.ttfo_ms.p50 > result.ttft_ms.p50 + 20
    """
    run(pytester, test, "--kitt-engine-arg=reasoning=10").assert_outcomes(passed=1)


def test_refused_requests_are_failures(pytester: pytest.Pytester) -> None:
    """A full queue answers with 429, and each is a failed request with its status, never tried again."""
    test = """
        from pytest_kitt import Phase

        def test_it(kitt_load):
            result = kitt_load("closed:4", "synthetic:8:8", "requests:40", warmup=0, hold=False)
            statuses = [r.status for r in result.records.rows() if r.phase is Phase.MEASURED]
            assert len(statuses) == 40
            assert set(statuses) == {200, 429}
            assert result.failed == statuses.count(429)
            assert result.failures == {"HTTP_STATUS": result.failed}
    """
    limits = ("--kitt-engine-arg=max_concurrent=2", "--kitt-engine-arg=max_waiting=1")
    run(pytester, test, *limits).assert_outcomes(passed=1)


def test_a_profile_sets_what_the_user_does_not(pytester: pytest.Pytester) -> None:
    """Its speeds are the profile's, and /version says what it pretends to be."""
    pytester.makepyfile(
        test_it="""
        import json, urllib.request

        def test_it(kitt_engine, kitt_load):
            said = json.load(urllib.request.urlopen(kitt_engine.url + "/version"))
            assert said["hardware"] == {
                "profile": "rtx4090", "gpu": "NVIDIA GeForce RTX 4090", "count": "1", "memory_gib": "24"
            }
            assert kitt_load("closed:1", "synthetic:8:20", "requests:3").itl_ms.p50 > 12
    """
    )
    options = ("--kitt-engine=simulated", "--kitt-engine-arg=profile=rtx4090", "--kitt-engine-arg=ttft_ms=1")
    pytester.runpytest_subprocess("-p", "no:cacheprovider", *options, "test_it.py").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "argument, said",
    [
        (
            "ttft_ms=normal:x",
            "*ttft_ms: 'normal:x' is not possible; expected: Milliseconds to the first token: N, normal*",
        ),
        ("error_rate=some", "*error_rate: 'some' is not possible; expected: Share of requests*"),
        ("profile=h100x", "*profile: 'h100x' is not possible; did you mean 'h100x8'?*"),
        ("kv_policy=swap", "*kv_policy: 'swap' is not possible; *preempt, reserve*"),
    ],
)
def test_a_bad_value_is_one_sentence(pytester: pytest.Pytester, argument: str, said: str) -> None:
    """It is refused before anything starts, with exit code 4, what is wrong, and what would be right."""
    result = run(pytester, "def test_it(kitt_load): pass", f"--kitt-engine-arg={argument}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line.strip()]
    assert len(lines) == 1
    result.stderr.fnmatch_lines([said])


def test_what_only_the_engine_can_know_is_one_sentence(pytester: pytest.Pytester) -> None:
    """A file that is not there fails the start, once, and its log is the one line that says so."""
    result = run(pytester, "def test_it(kitt_load): pass", "--kitt-engine-arg=ttft_ms=empirical:no.txt")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "*simulated ended with exit code 2 before it was ready: it refuses an argument",
            "*--- end of the engine's log ---",
            "*simulated: argument --ttft-ms: no.txt cannot be read: No such file or directory*",
        ]
    )
    result.stdout.no_fnmatch_line("*usage:*")


def test_the_card_knows_every_option() -> None:
    """Each option of the engine but the server's own is an argument of the card, with the same default and a help."""
    card = cards.load_engines()["simulated"]
    parser, options = arguments.read([])
    own = {"help", "host", "port", "model", "load_ms", "api_key_env", "tls_cert", "tls_key", "hardware"}
    assert set(card.arguments) == set(vars(options)) - own
    assert all(argument.flag == f"--{name.replace('_', '-')}" for name, argument in card.arguments.items())
    defaults = {name: argument.default for name, argument in card.arguments.items() if argument.default is not None}
    assert {name: parser.get_default(name) for name in defaults if name != "answers"} == {
        name: default for name, default in defaults.items() if name != "answers"
    }


def test_profiles_are_those_of_the_card() -> None:
    """Each can be read, is offered on the card, and holds values that the engine takes."""
    names = list(yaml.safe_load(profile.PROFILES.read_text()))
    card = cards.load_engines()["simulated"]
    assert card.arguments["profile"].values == names
    for name in names:
        _, options = arguments.read(["--profile", name])
        assert options.hardware["profile"] == name
        assert options.kv_tokens > 0
    _, options = arguments.read(["--profile", "h100", "--ttft-ms", "1", "--max-concurrent", "2"])
    assert (options.ttft_ms, options.max_concurrent) == (Constant(1), 2)
    assert options.itl_ms == Normal(7, 0.2)


def test_the_docs_list_every_argument() -> None:
    """docs/simulated.md has a row for each argument of the card."""
    page = (Path(__file__).parents[2] / "docs" / "simulated.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(cards.load_engines()["simulated"].arguments)

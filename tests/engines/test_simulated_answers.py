"""What the simulated engine says: probabilities, answers that it believes in, reasoning, calls; vLLM's JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pytest_kitt import shipped
from pytest_kitt.engine.simulated import author, knowledge, probability, text, tools
from pytest_kitt.engine.simulated.knowledge import Fact
from pytest_kitt.engine.simulated.openai import Ask
from pytest_kitt.engine.simulated.prefix import PrefixCache
from pytest_kitt.engine.simulated.probability import Knowledge, Model
from tests.engines.serving import Server, Start, serving, stream

NOTHING = Knowledge({}, {})
FACTS = (
    Fact("Largest?\nA. 43\nB. 99", "B", ("43", "99")),
    Fact("Which city?", "Paris on the Seine", ("Berlin on the Spree", "Paris on the Seine", "Rome")),
    Fact("36+20=?", "56"),
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """One quick server that knows the tiny questions."""
    with serving("--ttft-ms", "1", "--itl-ms", "0.2", "--answers", str(shipped.TINY_QUESTIONS)) as server:
        yield server


def chat(server: Server, content: str = "hello", **body: Any) -> dict[str, Any]:
    """One chat completion that is not streamed."""
    messages = [{"role": "user", "content": content}]
    reply = server.post("/v1/chat/completions", **{"messages": messages, **body})
    return dict(reply.raise_for_status().json())


def score(server: Server, context: str, choice: str, **body: Any) -> float:
    """The log-probability of a choice behind a context, by echo, as evaluation harnesses ask for it."""
    reply = server.complete(context + choice, max_tokens=0, echo=True, logprobs=1, **body)
    scored = reply["choices"][0]["logprobs"]
    values = zip(scored["text_offset"], scored["token_logprobs"], strict=True)
    return math.fsum(logprob for offset, logprob in values if offset >= len(context))


# Probabilities


def every(state_text: str, pieces: list[str], known: Knowledge = NOTHING) -> list[float]:
    """The probability of each piece behind the text."""
    model = Model(0, known)
    return [math.exp(next(model.judge(state_text, [piece])).logprob) for piece in pieces]


@pytest.mark.parametrize("known", [NOTHING, knowledge.believe(FACTS, accuracy=1, seed=0)])
@pytest.mark.parametrize("before", ["", "hello", "36+20=?", "36+20=? The answer is 5"])
def test_probabilities_sum_to_at_most_one(before: str, known: Knowledge) -> None:
    """The words have what the favoured and 1/16 of the rest leave; all short tokens together stay within 1."""
    plain = [chr(code) for code in range(0x21, 0x7F)]
    others = [piece for piece in (*plain, *map("".join, product(plain, repeat=2))) if piece not in text.WORDS]
    others += [f" {piece}" for piece in others if len(piece) == 1]
    probabilities = every(before, [*text.WORDS, *others], known)
    assert all(0 < probability < 1 for probability in probabilities)
    assert 0.9 < sum(every(before, [*text.WORDS, "56", " 56"], known)) <= 1
    assert sum(probabilities) <= 1


def test_a_text_has_one_probability() -> None:
    """Token by token, at once, or from any place on: the same numbers, and others for another seed."""
    model, pieces = Model(3, NOTHING), text.split("some words ba be and naïve 🙂 ones")
    whole = [found.logprob for found in model.judge("", pieces)]
    for cut in range(len(pieces)):
        rest = list(model.judge("".join(pieces[:cut]), pieces[cut:], top=3))
        assert [found.logprob for found in rest] == whole[cut:]
    assert whole != [found.logprob for found in Model(4, NOTHING).judge("", pieces)]
    assert all(logprob < 0 for logprob in whole)


@pytest.mark.parametrize("before", ["", "hello", "36+20=?", "36+20=?56", "Which city? Paris on"])
def test_ranks_and_the_likeliest_agree(before: str) -> None:
    """The likeliest are in falling order, each with the rank and probability that it has when judged itself."""
    model = Model(0, knowledge.believe(FACTS, accuracy=1, seed=0))
    (found,) = model.judge(before, [" ba"], top=20)
    logprobs = [logprob for _, logprob, _ in found.top]
    assert logprobs == sorted(logprobs, reverse=True)
    assert [rank for _, _, rank in found.top] == list(range(1, 21))
    for token, logprob, _ in found.top:
        (itself,) = model.judge(before, [token])
        assert itself.logprob == logprob
    first, logprob, _ = found.top[0]
    assert next(model.judge(before, [first])).rank == 1
    assert next(model.judge(before, ["@@@"])).rank == probability.BEHIND_ALL_WORDS
    ranks = sorted(next(model.judge(before, [word])).rank for word in text.WORDS)
    assert ranks[0] in (1, 2, 3)
    assert ranks[-1] <= 258


def test_greedy_takes_the_likeliest() -> None:
    """Each token of a greedy text has rank 1 behind the ones before it."""
    pieces = probability.compose_greedily(probability.start(5, "hello"), 50)
    assert {found.rank for found in Model(5, NOTHING).judge("hello", pieces)} == {1}
    assert len(set(pieces)) > 20


def test_answers_are_favoured_wherever_they_begin() -> None:
    """Behind the question the answer's first token is likely, with a space or without, and then each next one."""
    model = Model(0, knowledge.believe(FACTS, accuracy=1, seed=0))
    for before, answer in (("Q: Which city?\nA:", " Paris on the Seine"), ("Which city?", "Paris on the Seine")):
        found = [math.exp(token.logprob) for token in model.judge(before, text.split(answer))]
        assert found[0] > 0.3
        assert min(found[1:]) > 0.85
    few_shot = "Q: Which city?\nA: Paris on the Seine\n\nQ: 36+20=?\nA:"
    right, wrong = (math.exp(next(model.judge(few_shot, [piece])).logprob) for piece in (" 56", " Paris"))
    assert right > 0.3
    assert wrong < 1e-6


@pytest.mark.parametrize("fact", FACTS)
def test_who_knows_nothing_believes_something_wrong(fact: Fact) -> None:
    """Another choice, for a letter another letter; without choices the right answer is just unlikely."""
    wrong = knowledge.believe([fact], accuracy=0, seed=0)
    if not fact.choices:
        assert wrong == Knowledge({}, {fact.question: fact.answer})
        right = Model(0, wrong).judge(fact.question, [fact.answer])
        plain = Model(0, NOTHING).judge(fact.question, [fact.answer])
        assert next(right).logprob == pytest.approx(next(plain).logprob - 20 * math.log(2))
        return
    (belief,) = wrong.favoured.values()
    assert belief != fact.answer
    assert belief in (fact.choices if len(fact.choices) > 2 else ("A",))


def test_what_is_not_known_is_not_said() -> None:
    """To a question without choices that it does not know it says made-up words."""
    ask = Ask(False, "36+20=?", 5, 8, (), "greedy", stream=False, include_usage=False)
    knows, errs = (knowledge.believe(FACTS, accuracy=accuracy, seed=0) for accuracy in (1, 0))
    assert author.write(ask, 0, seed=0, knowledge=knows, reasoning=0).text == "56"
    made_up = author.write(ask, 0, seed=0, knowledge=errs, reasoning=0)
    assert set(made_up.pieces) <= set(text.WORDS)


def test_accuracy_is_a_share_by_seed() -> None:
    """About so many are known, the same ones for the same seed, and more of them at a higher accuracy."""
    facts = [Fact(f"q{index}?", "yes", ("yes", "no")) for index in range(400)]

    def known(accuracy: float, seed: int = 0) -> set[str]:
        found = knowledge.believe(facts, accuracy=accuracy, seed=seed).favoured
        return {question for question, answer in found.items() if answer == "yes"}

    assert len(known(0)) == 0
    assert len(known(1)) == 400
    assert 80 < len(known(0.3)) < 160
    assert known(0.3) < known(0.6)
    assert known(0.3, seed=1) != known(0.3)


def test_the_tiny_questions_have_answers() -> None:
    """The shipped file is one of facts."""
    facts = knowledge.read(str(shipped.TINY_QUESTIONS))
    assert len(facts) > 10
    assert any(fact.choices for fact in facts)
    assert knowledge.read("") == ()


# Log-probabilities over HTTP


def test_completion_logprobs(shared: Server) -> None:
    """Tokens, offsets, log-probabilities, and the likeliest with the token itself, for as many as were asked."""
    choice = shared.complete("hello", max_tokens=5, temperature=0, logprobs=2)["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"] == [sum(map(len, found["tokens"][:index])) for index in range(5)]
    likelihoods = Model(0, NOTHING).judge("hello", found["tokens"])
    assert found["token_logprobs"] == [one.logprob for one in likelihoods]
    for token, logprob, top in zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True):
        assert len(top) == 2
        assert max(top, key=lambda name: top[name]) == token
        assert top[token] == logprob
    (only,) = shared.complete("hello", max_tokens=1, logprobs=0)["choices"][0]["logprobs"]["top_logprobs"]
    assert len(only) == 1


def test_echo_scores_what_was_generated(shared: Server) -> None:
    """A text that was generated has the same log-probabilities when it is echoed, token for token."""
    made = shared.complete("hello", max_tokens=20, seed=4, logprobs=1)["choices"][0]
    echoed = shared.complete("hello" + made["text"], max_tokens=0, echo=True, logprobs=1)
    again = echoed["choices"][0]["logprobs"]
    assert echoed["usage"] == {"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 21}
    assert again["tokens"][1:] == made["logprobs"]["tokens"]
    assert again["token_logprobs"] == [None, *made["logprobs"]["token_logprobs"]]
    assert again["top_logprobs"][1:] == made["logprobs"]["top_logprobs"]
    assert again["top_logprobs"][0] is None
    assert again["text_offset"] == [0, *(5 + offset for offset in made["logprobs"]["text_offset"])]


def test_echo_goes_before_the_answer(shared: Server) -> None:
    """With tokens to come, text and log-probabilities are the prompt's and then the answer's, streamed too."""
    body: dict[str, Any] = {"prompt": "one two", "max_tokens": 3, "temperature": 0, "echo": True, "logprobs": 1}
    whole = shared.complete(**body)["choices"][0]
    assert whole["text"].startswith("one two ")
    assert len(whole["logprobs"]["tokens"]) == 5
    streamed = stream(shared, **body)
    assert streamed.text == whole["text"]
    parts = [event["choices"][0]["logprobs"] for event in streamed.events]
    assert [len(part["tokens"]) for part in parts] == [3, 1, 1]
    for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        assert [value for part in parts for value in part[name]] == whole["logprobs"][name]
    only = stream(shared, **{**body, "max_tokens": 0})
    assert [event["choices"][0]["text"] for event in only.events] == ["one two"]
    assert only.events[0]["choices"][0]["finish_reason"] == "length"


def test_harnesses_score_by_token_ids(shared: Server) -> None:
    """Ids of context and choice with one token to make: the sum behind the context, without the last, is the score."""
    context, choice = "Question: 36+20=?\nAnswer:", " 56"
    ids = shared.post("/tokenize", prompt=context + choice).json()["tokens"]
    begin = shared.post("/tokenize", prompt=context).json()["count"]
    body = {"prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": 1, "echo": True, "seed": 1234}
    found = shared.post("/v1/completions", **body).json()["choices"][0]["logprobs"]
    assert len(found["token_logprobs"]) == len(ids) + 1
    assert math.fsum(found["token_logprobs"][begin:-1]) == score(shared, context, choice)


def test_scores_are_the_same_cold_warm_and_in_a_batch(shared: Server) -> None:
    """Who asks when and beside whom changes no score."""
    cold = score(shared, "Any context", " and a choice")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: score(shared, "Any context", " and a choice"), range(16)))
    assert set(found) == {cold}


def test_prompt_logprobs(shared: Server) -> None:
    """The first is null, then each by token id with rank and text; in a completion's choice, or a chat's top."""
    choice = shared.complete("one two ba", max_tokens=1, prompt_logprobs=2)["choices"][0]
    first, *rest = choice["prompt_logprobs"]
    ids = shared.post("/tokenize", prompt="one two ba").json()["tokens"]
    assert first is None
    likelihoods = list(Model(0, NOTHING).judge("one", [" two", " ba"], top=2))
    for token, found, expected in zip(ids[1:], rest, likelihoods, strict=True):
        own = {"logprob": expected.logprob, "rank": expected.rank, "decoded_token": expected.token}
        assert found[str(token)] == own
        assert [entry["rank"] for entry in found.values()][-2:] == [1, 2]
    reply = chat(shared, max_tokens=1, prompt_logprobs=0)
    assert len(reply["prompt_logprobs"]) == reply["usage"]["prompt_tokens"]
    assert all(len(found) == 1 for found in reply["prompt_logprobs"][1:])


def test_chat_logprobs(shared: Server) -> None:
    """A list under `content`, with bytes and as many of the likeliest as were asked; the same in the stream."""
    body: dict[str, Any] = {"max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    choice = chat(shared, **body)["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(one["token"] for one in content) == choice["message"]["content"]
    for one in content:
        assert bytes(one["bytes"]).decode() == one["token"]
        assert one["top_logprobs"][0] == {key: one[key] for key in ("token", "logprob", "bytes")}
        assert len(one["top_logprobs"]) == 2
    messages = [{"role": "user", "content": "hello"}]
    events = stream(shared, "/v1/chat/completions", messages=messages, **body).events
    streamed = [one for event in events[1:] for one in event["choices"][0]["logprobs"]["content"]]
    assert streamed == content
    assert events[0]["choices"][0]["logprobs"] is None
    assert chat(shared, max_tokens=1, logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


@pytest.mark.parametrize("accuracy, least, most", [("1", 1.0, 1.0), ("0", 0.0, 0.0)])
def test_scoring_finds_what_it_believes(start: Start, tmp_path: Path, accuracy: str, least: float, most: float) -> None:
    """By sum and by normalised sum the known answer wins over every other choice; who knows nothing errs."""
    colours = ("red", "blue green", "a very long description of yellow", "x")
    rows = [{"question": f"colour of {n}?", "answer": colours[n % 4], "choices": colours} for n in range(8)]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = start("--ttft-ms", "0", "--answers", str(tmp_path / "facts.jsonl"), "--accuracy", accuracy)
    right = [0, 0]
    for row in rows:
        context = f"Answer shortly.\n\nQuestion: {row['question']}\nAnswer:"
        scores = [score(server, context, f" {choice}") for choice in colours]
        normalised = [value / len(choice) for value, choice in zip(scores, colours, strict=True)]
        for place, values in enumerate((scores, normalised)):
            right[place] += colours[values.index(max(values))] == row["answer"]
    assert all(least <= hits / 8 <= most for hits in right)


def test_who_has_no_answers_guesses() -> None:
    """Without a file single letters are as likely as each other on the whole: each wins about a quarter of the time."""
    model = Model(0, NOTHING)

    def guess(context: str) -> str:
        return max("ABCD", key=lambda letter: next(model.judge(context, [f" {letter}"])).logprob)

    best = [guess(f"Question {index}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:") for index in range(400)]
    assert all(70 <= best.count(letter) <= 130 for letter in "ABCD")


def test_generated_answers_follow_the_accuracy(start: Start) -> None:
    """What it says is what it scores best: the letter that it believes in."""
    server = start("--ttft-ms", "0", "--answers", str(shipped.TINY_QUESTIONS), "--accuracy", "0")
    facts = [fact for fact in knowledge.read(str(shipped.TINY_QUESTIONS)) if fact.choices][:5]
    for fact in facts:
        said = server.complete(fact.question + "\nAnswer: ", temperature=0)["choices"][0]["text"]
        letters = "ABCDEFGH"[: len(fact.choices)]
        assert said != fact.answer
        assert said == max(letters, key=lambda letter: score(server, f"{fact.question}\nAnswer:", f" {letter}"))


@pytest.mark.parametrize(
    "path, body, words",
    [
        ("completions", {"prompt": "x", "logprobs": 21}, "`logprobs` must be from 0 to 20"),
        ("completions", {"prompt": "x", "logprobs": True}, "`logprobs`"),
        ("completions", {"prompt": "x", "prompt_logprobs": 1, "stream": True}, "`prompt_logprobs`"),
        ("completions", {"prompt": "x", "max_tokens": -1, "echo": True}, "at least 0"),
        ("chat/completions", {"messages": [{"content": "x"}], "top_logprobs": 2}, "`top_logprobs` needs"),
        ("chat/completions", {"messages": [{"content": "x"}], "echo": True}, "`echo`"),
        ("chat/completions", {"messages": [{"content": "x"}], "tools": [{}]}, "`function`"),
        (
            "chat/completions",
            {
                "messages": [{"content": "x"}],
                "tools": [{"function": {"name": "f"}}],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            "'g'",
        ),
    ],
)
def test_refusals(shared: Server, path: str, body: dict[str, Any], words: str) -> None:
    """What makes no sense is status 400 with a sentence that names the field."""
    reply = shared.post(f"/v1/{path}", **body)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


# Reasoning, calls, bundles


def test_reasoning(start: Start) -> None:
    """A chat thinks first, in deltas of its own; both count as tokens, and a short limit can cut the answer off."""
    server = start("--ttft-ms", "0", "--itl-ms", "0", "--reasoning", "4", "--answers", str(shipped.TINY_QUESTIONS))
    reply = chat(server, "36+20=?", temperature=0)
    message = reply["choices"][0]["message"]
    assert message["content"] == "56"
    assert text.count(message["reasoning_content"]) == 4
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] == 5
    assert reply["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
    body = {"messages": [{"role": "user", "content": "36+20=?"}], "temperature": 0}
    role, *deltas = [event["choices"][0]["delta"] for event in stream(server, "/v1/chat/completions", **body).events]
    assert role == {"role": "assistant", "content": ""}
    assert [list(delta) for delta in deltas] == [["reasoning_content"]] * 4 + [["content"]]
    assert "".join(delta["reasoning_content"] for delta in deltas[:4]) == message["reasoning_content"]
    cut = chat(server, "36+20=?", max_tokens=3)["choices"][0]
    assert (cut["message"]["content"], cut["finish_reason"]) == ("", "length")
    assert server.complete("36+20=?")["choices"][0]["text"] == "56"


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer"},
                "unit": {"enum": ["C", "F"]},
                "where": {"type": "object", "properties": {"exact": {"type": "boolean"}}},
            },
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}


def test_a_call(shared: Server) -> None:
    """With tools the answer is a call of the first, its arguments JSON that fits the schema, its reason tool_calls."""
    choice = chat(shared, tools=[WEATHER, CLOCK], temperature=0)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert (call["type"], call["function"]["name"], bool(call["id"])) == ("function", "get_weather", True)
    arguments = json.loads(call["function"]["arguments"])
    assert list(arguments) == ["city", "days", "unit", "where"]
    assert isinstance(arguments["city"], str)
    assert isinstance(arguments["days"], int)
    assert arguments["unit"] in ("C", "F")
    assert isinstance(arguments["where"]["exact"], bool)


def test_a_streamed_call(shared: Server) -> None:
    """The first delta has id, type and name, the others pieces of the arguments; one event for each token."""
    body = {"messages": [{"role": "user", "content": "hello"}], "tools": [WEATHER], "temperature": 0}
    (whole,) = chat(shared, tools=[WEATHER], temperature=0)["choices"][0]["message"]["tool_calls"]
    result = stream(shared, "/v1/chat/completions", **body, stream_options={"include_usage": True})
    choices = [event["choices"][0] for event in result.events[1:-1]]
    calls = [call for choice in choices for call in choice["delta"]["tool_calls"]]
    assert {call["index"] for call in calls} == {0}
    assert (calls[0]["type"], calls[0]["function"]) == ("function", {"name": "get_weather", "arguments": ""})
    assert all(list(call) == ["index", "function"] for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == whole["function"]["arguments"]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["tool_calls"]
    assert result.events[-1]["usage"]["completion_tokens"] == len(calls)


def test_which_tool_is_called(shared: Server) -> None:
    """The one that is named, else the first; none if none is asked for, or behind a tool's result."""

    def called(**body: Any) -> str | None:
        message = chat(shared, tools=[WEATHER, CLOCK], **body)["choices"][0]["message"]
        return message["tool_calls"][0]["function"]["name"] if message.get("tool_calls") else None

    named = {"type": "function", "function": {"name": "get_time"}}
    result = [{"role": "user", "content": "x"}, {"role": "tool", "content": "sunny", "tool_call_id": "1"}]
    assert called(tool_choice=named) == "get_time"
    assert called(tool_choice="none") is None
    assert called(messages=result) is None
    assert called(messages=result, tool_choice="required") == "get_weather"
    assert chat(shared, tools=[WEATHER], max_tokens=2)["choices"][0]["finish_reason"] == "length"


def test_a_name_of_any_length_has_a_probability(shared: Server) -> None:
    """A tool's name is one token; the probability of a very long one is 0, and its logarithm vLLM's -9999."""
    tool = {"function": {"name": "x" * 1000}}
    reply = chat(shared, tools=[tool], max_tokens=1, logprobs=True)
    assert reply["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


def test_hostile_schemas_end() -> None:
    """A schema of any depth and width gives arguments of bounded size; what is no schema gives null."""
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"type": "object", "properties": {"x": deep}}
    assert json.loads(tools.make_arguments(deep, 1)) == {"x": {"x": {"x": {"x": {}}}}}
    wide = {"properties": {str(index): 3 for index in range(10_000)}}
    assert json.loads(tools.make_arguments(wide, 1)) == {str(index): None for index in range(64)}


def test_bundles(start: Start) -> None:
    """Events of so many tokens, the last of what is left, none with both reasoning and answer; the same text."""
    server = start("--ttft-ms", "0", "--itl-ms", "0", "--bundle", "4", "--reasoning", "5")
    body: dict[str, Any] = {"prompt": "x", "max_tokens": 10, "temperature": 0, "logprobs": 1}
    result = stream(server, **body, stream_options={"include_usage": True})
    assert [text.count(piece) for _, piece in result.tokens] == [4, 4, 2]
    assert result.events[-1]["usage"]["completion_tokens"] == 10
    whole = server.complete(**body)["choices"][0]
    assert result.text == whole["text"]
    found = [event["choices"][0]["logprobs"] for event in result.events[:-1]]
    assert [token for part in found for token in part["tokens"]] == whole["logprobs"]["tokens"]
    messages = [{"role": "user", "content": "x"}]
    events = stream(server, "/v1/chat/completions", messages=messages, max_tokens=12).events[1:]
    deltas = [event["choices"][0]["delta"] for event in events]
    counts = [(name, text.count(piece)) for delta in deltas for name, piece in delta.items()]
    assert counts == [("reasoning_content", 4), ("reasoning_content", 1), ("content", 3), ("content", 4)]


# The prefix cache


def test_prefix_cache_counts_whole_blocks() -> None:
    """Blocks of 16 from the beginning on, never the whole prompt; what was used longest ago is forgotten."""
    cache = PrefixCache(capacity_tokens=64)
    tokens = [str(index) for index in range(40)]
    assert [cache.look_up(tokens), cache.look_up(tokens)] == [0, 32]
    assert cache.look_up(tokens[:20] + ["other"] * 20) == 16
    assert cache.look_up(tokens[:32]) == 16
    assert cache.look_up(["x", *tokens]) == 0
    assert (cache.queries, cache.hits) == (40 + 40 + 40 + 32 + 41, 32 + 16 + 16)
    assert [cache.look_up([str(-index) for index in range(64)]), cache.look_up(tokens)] == [0, 0]
    cache.reset()
    assert cache.look_up(tokens) == 0


def test_a_cached_prompt_is_faster(start: Start) -> None:
    """The usage says how much was cached, /metrics counts it, the TTFT is shorter by that share; a reset forgets it."""
    server = start("--ttft-ms", "100", "--prefix-cache", "1", "--tokens", "1")
    prompt = " ".join(["ba"] * 33)

    def ask() -> tuple[int, float]:
        before = server.metric("vllm:time_to_first_token_seconds_sum")
        details = server.complete(prompt)["usage"]["prompt_tokens_details"]
        return details["cached_tokens"], server.metric("vllm:time_to_first_token_seconds_sum") - before

    cold, warm = ask(), ask()
    assert (cold[0], warm[0]) == (0, 32)
    assert cold[1] == pytest.approx(0.1, abs=1e-9)
    assert warm[1] == pytest.approx(0.1 / 33, abs=1e-9)
    assert server.metric("vllm:prefix_cache_queries_total") == 66
    assert server.metric("vllm:prefix_cache_hits_total") == 32
    assert server.post("/reset_prefix_cache").status_code == 200
    assert ask()[0] == 0

"""Does each way to score a text ask as its protocol wants it, read what that answers, and refuse everything else?"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

import httpx
import pytest

from pytest_kitt.cards import EngineCard, LikelihoodWay, ResetCard, TokenizeCard, load_engines
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.errors import EngineRequestError, Unscorable
from pytest_kitt.evals.loglikelihood import by_threads, divide, each_scored, encode, loglikelihood
from pytest_kitt.evals.probe import probe
from pytest_kitt.evals.ways import WAYS, Pair, Scored
from pytest_kitt.matrix import Cell
from pytest_kitt.model import reference

Body = dict[str, Any]
Server = Callable[[str, Body], Any]

# The doubles serve a model of letters: BOS is token 1, every other token a character, and its log-probability an eighth
# for each step of its code above 32, the space's: " Paris" has the sum below. Greedy decoding writes spaces.
BOS = 1
PARIS = -sum(ord(letter) - 32 for letter in " Paris") / 8
CAPITAL = ("The capital of France is", " Paris")


def ids_of(text: str) -> list[int]:
    """The text's tokens."""
    return [BOS, *map(ord, text)]


def logprob(token: int) -> float:
    """What the model thinks of a token, wherever it stands."""
    return -(token - 32) / 8


def vllm(path: str, body: Body) -> Any:
    """Completions with echo, and /tokenize."""
    if path == "/tokenize":
        return {"tokens": ids_of(body["prompt"])[0 if body.get("add_special_tokens", True) else 1 :]}
    prompt = body["prompt"]
    ids = prompt if isinstance(prompt, list) else ids_of(prompt)
    written = [*ids, 32] if body.get("echo") else [32]
    logprobs = [None if place == 0 and body.get("echo") else logprob(token) for place, token in enumerate(written)]
    said = {
        "tokens": ["<s>" if token == BOS else chr(token) for token in written],
        "token_logprobs": logprobs,
        "top_logprobs": [None if value is None else {"x": value, " ": 0.0} for value in logprobs],
    }
    return {"choices": [{"logprobs": said}]}


def sglang(path: str, body: Body) -> Any:
    """/generate with the input's log-probabilities from a place on, where the first is always null."""
    if path == "/v1/tokenize":
        return {"tokens": ids_of(body["prompt"])}
    ids = body["input_ids"][body["logprob_start_len"] :]
    rest = [[logprob(token), token, None] for token in ids[1:]]
    top = [None, *([[0.0, 32, None]] for _ in ids[1:])]
    return {"meta_info": {"input_token_logprobs": [[None, ids[0], None], *rest], "input_top_logprobs": top}}


def tgi(path: str, body: Body) -> Any:
    """/tokenize, whose answer is the list, and /generate with the prefill."""
    ids = ids_of(body["inputs"])
    if path == "/tokenize":
        return [{"id": token, "text": "", "start": 0, "stop": 0} for token in ids]
    assert body["parameters"]["decoder_input_details"]
    prefill = [{"id": token, "text": "", "logprob": logprob(token) if token > BOS else None} for token in ids]
    return {"generated_text": " ", "details": {"finish_reason": "length", "prefill": prefill, "tokens": []}}


def llama_cpp(path: str, body: Body) -> Any:
    """/tokenize, and /completion that generates what grammar or bias force."""
    if path == "/tokenize":
        return {"tokens": ids_of(body["content"])[0 if body["add_special"] else 1 :]}
    forced = body.get("grammar", "").removeprefix("root ::= ").split() or [f"<[{body['logit_bias'][0][0]}]>"]
    written = [int(token.strip("<[]>")) for token in forced][: body["n_predict"]]
    top = [{"id": 32, "logprob": 0.0}]
    return {"completion_probabilities": [{"id": t, "logprob": logprob(t), "top_logprobs": top} for t in written]}


def ollama(path: str, body: Body) -> Any:
    """/api/generate with the likeliest first tokens."""
    assert path == "/api/generate"
    assert (body["raw"], body["top_logprobs"], body["options"]["num_predict"]) == (True, 20, 1)
    tops = [{"token": " the", "logprob": -0.5}, {"token": " P", "logprob": -1.5}, {"token": " Paris", "logprob": -1.0}]
    return {"response": " the", "logprobs": [{"token": " the", "logprob": -0.5, "top_logprobs": tops}]}


CARDS = {
    "vllm": (vllm, TokenizeCard(path="/tokenize", text="prompt", special="add_special_tokens"), ["echo", "echo_text"]),
    "sglang": (sglang, TokenizeCard(path="/v1/tokenize", text="prompt"), ["input_logprobs"]),
    "tgi": (tgi, TokenizeCard(path="/tokenize", text="inputs", tokens=""), ["prefill"]),
    "llama_cpp": (
        llama_cpp,
        TokenizeCard(path="/tokenize", text="content", special="add_special"),
        ["grammar", "token_by_token"],
    ),
    "ollama": (ollama, None, ["first_token_top20"]),
}


def engine(
    name: str, answer: Server | None = None, card: EngineCard | None = None, runtime: str = "endpoint"
) -> RunningEngine:
    """An engine of such a card, answered by its double or by another."""
    double, tokenize, ways = CARDS[name]
    card = card or EngineCard(name=name, description="x", tokenize=tokenize, loglikelihood=ways)  # type: ignore[arg-type]
    served = answer or double

    def handle(request: httpx.Request) -> httpx.Response:
        found = served(request.url.path, json.loads(request.content or b"{}"))
        return found if isinstance(found, httpx.Response) else httpx.Response(200, content=json.dumps(found))

    http = httpx.Client(transport=httpx.MockTransport(handle), base_url="http://engine:1")
    return RunningEngine(Cell(name, reference.served("m"), runtime), card, Access("http://engine:1"), http=http)


EXACT = [(name, way) for name, (_, _, ways) in CARDS.items() for way in ways if name != "ollama"]


@pytest.mark.parametrize("name, way", EXACT)
def test_each_way_finds_the_models_number(name: str, way: str) -> None:
    """The sum over the continuation's tokens alone, the white space between both among them."""
    found = loglikelihood(engine(name), [CAPITAL, ("The capital of France is ", "Paris"), ("x", "  ")], ways=[way])
    greedy = None if name == "tgi" else False
    assert found[:2] == [Scored(PARIS, greedy, 6)] * 2
    assert found[2] == Scored(0.0, None if name == "tgi" else True, 2)


def test_a_first_token_is_an_estimate() -> None:
    """The longest of the twenty with which the continuation begins; none of them is -inf, and not a small number."""
    found = loglikelihood(engine("ollama"), [CAPITAL, ("x", " banana"), ("x", " the end")], ways=["first_token_top20"])
    assert found == [Scored(-1.0, False, 1), Scored(-math.inf, False, 1), Scored(-0.5, True, 1)]
    assert not WAYS["first_token_top20"].exact


def test_white_space_belongs_to_the_continuation() -> None:
    """All of it at the context's end, as lm-evaluation-harness has it."""
    assert divide("a b \n", "c") == ("a b", " \nc")
    assert divide("a", " c") == ("a", " c")
    assert divide(" ", "c") == ("", " c")


def test_tokens_are_divided_by_their_number_in_the_context() -> None:
    """A token that the whole joins across the boundary counts where the number of the context's tokens puts it."""
    assert encode("ab", "c", (1, 7, 8), (1, 7, 9, 5)) == Pair("ab", "c", (1, 7, 9), (5,))


def test_bos_is_asked_for_or_not() -> None:
    """By the field that the card names; an engine that has none decides itself, and that is said."""
    seen: list[Body] = []

    def spy(path: str, body: Body) -> Any:
        seen.append(body)
        return vllm(path, body)

    for bos in (None, True, False):
        loglikelihood(engine("vllm", spy), [CAPITAL], ways=["echo"], bos=bos)
    assert [body["add_special_tokens"] for body in seen if "add_special_tokens" in body] == [True] * 4 + [False] * 2
    assert [body["prompt"][0] for body in seen if "echo" in body] == [BOS, BOS, ord("T")]
    with pytest.raises(EngineRequestError, match="engine tgi decides itself about special tokens"):
        loglikelihood(engine("tgi"), [CAPITAL], ways=["prefill"], bos=False)


def test_texts_without_tokenizer_are_divided_where_they_are() -> None:
    """BOS in front and the generated token behind count for nothing; a token that belongs to both is refused."""
    pair = Pair("ab", " cd")
    said = {"tokens": ["<s>", "ab", " c", "d", "!"], "token_logprobs": [None, -1.0, -2.0, -4.0, -8.0]}
    assert WAYS["echo_text"].read(pair, [{"choices": [{"logprobs": said}]}]) == Scored(-6.0, None, 2)
    said = {"tokens": ["a", "b c", "d"], "token_logprobs": [None, -1.0, -2.0]}
    with pytest.raises(Unscorable, match="one token holds the end of the context and the beginning"):
        WAYS["echo_text"].read(pair, [{"choices": [{"logprobs": said}]}])
    said = {"tokens": ["x"], "token_logprobs": [-1.0]}
    with pytest.raises(Unscorable, match="the server does not echo"):
        WAYS["echo_text"].read(pair, [{"choices": [{"logprobs": said}]}])


@pytest.mark.parametrize("pair, why", [(("", "x"), "the context is empty"), (("x", ""), "no token of its own")])
def test_what_has_no_probability(pair: tuple[str, str], why: str) -> None:
    """Without a context or a continuation there is nothing to score."""
    server = lambda path, body: {"tokens": ids_of(body["prompt"])[1:]} if path == "/tokenize" else {}  # noqa: E731
    with pytest.raises(Unscorable, match=why):
        loglikelihood(engine("vllm", server), [pair], ways=["echo"])


@pytest.mark.parametrize("name, way", [*EXACT, ("ollama", "first_token_top20")])
@pytest.mark.parametrize("answer", [None, [], {}, 3, "x", {"choices": []}, {"choices": [{"logprobs": None}]}])
def test_no_answer_is_guessed_at(name: str, way: str, answer: Any) -> None:
    """Whatever else a server says is refused in a sentence."""
    double = CARDS[name][0]
    server = lambda path, body: double(path, body) if "tokenize" in path else answer  # noqa: E731
    with pytest.raises(Unscorable, match=f"' Paris' cannot be scored: {way}: "):
        loglikelihood(engine(name, server), [CAPITAL], ways=[way])


BAD_VALUES: list[Any] = [None, "-1", True, math.nan, -math.inf, math.inf, 0.5, [], {}]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize("name, way", EXACT)
def test_no_value_is_guessed_at(name: str, way: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no finite number below 0 is no log-probability."""
    monkeypatch.setattr(f"{__name__}.logprob", lambda token: value if token == ord("r") else -1.0)
    with pytest.raises(Unscorable):
        loglikelihood(engine(name), [CAPITAL], ways=[way])


@pytest.mark.parametrize("name, way", [pair for pair in EXACT if not pair[1].startswith("echo")])
def test_other_tokens_are_not_scored(name: str, way: str) -> None:
    """An answer that speaks of tokens that nobody asked about."""

    def other(path: str, body: Body) -> Any:
        said = CARDS[name][0](path, body)
        return said if "tokenize" in path else json.loads(json.dumps(said).replace(str(ord("r")), str(ord("s"))))

    with pytest.raises(Unscorable, match="the answer speaks of tokens"):
        loglikelihood(engine(name, other), [CAPITAL], ways=[way])


def test_what_one_way_cannot_score_goes_to_the_next() -> None:
    """Pair by pair; the sentence about one that no way scores names both reasons, and the others are scored."""

    def partial(path: str, body: Body) -> Any:
        if "grammar" in body and str(ord("ö")) in body["grammar"]:
            return httpx.Response(500, json={"error": {"message": "no such grammar"}})
        if "logit_bias" in body and body["logit_bias"][0][0] == ord("ü"):
            return {}
        return llama_cpp(path, body)

    ways, pairs = ["grammar", "token_by_token"], [CAPITAL, ("x", " schön"), ("x", " öü")]
    served = engine("llama_cpp", partial)
    found = each_scored(served, pairs, ways=ways, ask=by_threads(served))
    assert found[0] == Scored(PARIS, greedy=False, tokens=6)
    assert found[1] == Scored(sum(map(logprob, map(ord, " schön"))), greedy=False, tokens=6)
    assert isinstance(found[2], Unscorable)
    assert "grammar: llama_cpp answered with status 500: no such grammar; token_by_token: " in str(found[2])


def test_what_several_pairs_ask_is_asked_once() -> None:
    """Ollama's likeliest first tokens are the same for all choices of a question; so are equal pairs."""
    seen: list[str] = []

    def spy(path: str, body: Body) -> Any:
        seen.append(path)
        return ollama(path, body) if path == "/api/generate" else vllm(path, body)

    found = loglikelihood(engine("ollama", spy), [CAPITAL, (CAPITAL[0], " banana")], ways=["first_token_top20"])
    assert [one.logprob for one in found] == [-1.0, -math.inf]
    assert loglikelihood(engine("vllm", spy), [CAPITAL] * 3, ways=["echo"]) == [Scored(PARIS, False, 6)] * 3
    assert Counter(seen) == {"/api/generate": 1, "/tokenize": 2, "/v1/completions": 1}


def test_so_many_pairs_are_under_way_at_a_time() -> None:
    """As many as asked for, and not one more; the answers are in the order of the pairs."""
    room, crowd, lock = threading.Barrier(4), [0, 0], threading.Lock()

    def slow(path: str, body: Body) -> Any:
        if path == "/tokenize":
            return vllm(path, body)
        with lock:
            crowd[0] += 1
            crowd[1] = max(crowd)
        room.wait(timeout=60)
        with lock:
            crowd[0] -= 1
        return vllm(path, body)

    pairs = [("x", " " + letter) for letter in "abcdefgh"]
    found = loglikelihood(engine("vllm", slow), pairs, ways=["echo"], concurrency=4)
    assert [one.logprob for one in found] == [logprob(ord(pair[1][1])) for pair in pairs]
    assert crowd[1] == 4


@pytest.mark.parametrize(
    "answer, why",
    [([], "without 'tokens'"), ({}, "without 'tokens'"), ({"tokens": ["a"]}, "no token id"), ("[", "JSON")],
)
def test_a_tokenizer_that_answers_something_else(answer: Any, why: str) -> None:
    """It is an error that names the path, and nothing is scored."""
    said = httpx.Response(200, text="[") if answer == "[" else answer
    with pytest.raises(EngineRequestError, match=f"/tokenize of vllm .*{why}"):
        loglikelihood(engine("vllm", lambda *_: said), [CAPITAL], ways=["echo"])


def test_cards_and_ways_have_the_same_names() -> None:
    """Every name that a card may have is a way, and every shipped card names ways that it can go."""
    assert set(get_args(LikelihoodWay)) == set(WAYS)
    for card in load_engines().values():
        assert card.tokenize is not None or not any(WAYS[way].by_ids for way in card.loglikelihood), card.name


# The probe


@pytest.mark.parametrize("name", [name for name in CARDS if name != "ollama"])
def test_good_servers_pass_the_probe(name: str) -> None:
    """Every way of the card, with no difference between cold and warm, alone and among eight."""
    # "banana" is longer than "Paris", and so less likely
    found = probe(engine(name))
    assert [*found.ways] == CARDS[name][2]
    assert (found.exact, found.refused, found.warm_delta, found.batch_delta) == (True, {}, 0.0, 0.0)


@pytest.mark.parametrize("status, emptied", [(200, True), (400, False)])
def test_a_cache_is_emptied_before_the_first_score(status: int, emptied: bool) -> None:
    """Of an engine that was started here, as its card says; one that refuses is scored all the same."""
    seen: list[str] = []

    def spy(path: str, body: Body) -> Any:
        seen.append(path)
        return httpx.Response(status) if path == "/flush_cache" else sglang(path, body)

    card = engine("sglang").card.model_copy(update={"reset_cache": ResetCard(path="/flush_cache")})
    assert not probe(engine("sglang", spy, card)).emptied
    assert "/flush_cache" not in seen
    assert probe(engine("sglang", spy, card, runtime="process")).emptied is emptied
    assert seen.count("/flush_cache") == 1


def without_echo(path: str, body: Body) -> Any:
    """A server that ignores ``echo``."""
    return vllm(path, {key: value for key, value in body.items() if key != "echo"})


def test_a_server_that_ignores_echo_is_caught() -> None:
    """By the number of log-probabilities, or by the tokens' texts; the sentence says so."""
    with pytest.raises(Unscorable) as caught:
        probe(engine("vllm", without_echo))
    assert "1 log-probabilities came for 31 prompt tokens: the server does not echo them" in str(caught.value)
    assert "the tokens that came are not those of the prompt" in str(caught.value)


def test_the_other_way_is_taken() -> None:
    """A server that does not know token grammars is scored token by token, and the reason is kept."""
    server = lambda path, body: httpx.Response(400) if "grammar" in body else llama_cpp(path, body)  # noqa: E731
    found = probe(engine("llama_cpp", server))
    assert found.ways == ("token_by_token",)
    assert [*found.refused] == ["grammar"]
    assert "status 400" in found.refused["grammar"]


def test_an_estimate_is_taken_only_where_it_will_do() -> None:
    """Never in place of exact numbers, and only by name."""
    with pytest.raises(Unscorable, match=r"first_token_top20: it is an estimate"):
        probe(engine("ollama"))
    found = probe(engine("ollama"), exact=False)
    assert (found.ways, found.exact) == (("first_token_top20",), False)
    both = probe(engine("vllm"), ways=["first_token_top20", "echo"], exact=False)
    assert (both.ways, both.exact) == (("echo",), True)


def test_a_card_without_ways() -> None:
    """Nothing is tried, and that is said."""
    with pytest.raises(Unscorable, match=r"cannot say how likely a text is \(its card names no way\)"):
        probe(engine("vllm"), ways=[])


@pytest.mark.parametrize(
    "think, why",
    [
        (lambda _: 0.0, "not finite and below 0"),
        (lambda token: -1.0 if token == 32 else 0.0, "both score -1"),
        (lambda token: -float(token == ord("P")), "not finite and below 0"),
        (lambda token: -1.0 - (token == ord("P")) * 99, "a likely text scores -105, an unlikely one -7"),
    ],
)
def test_numbers_that_make_no_sense_are_caught(
    think: Callable[[int], float], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All zero, all the same, or the nonsense likelier than the fact."""
    monkeypatch.setattr(f"{__name__}.logprob", think)
    with pytest.raises(Unscorable, match=why):
        probe(engine("sglang"))


def test_a_server_that_does_not_repeat_itself_is_caught() -> None:
    """Another score for the same text, as from a broken prefix cache."""
    asked: list[Body] = []

    def forgetful(path: str, body: Body) -> Any:
        said = sglang(path, body)
        if path == "/generate":
            asked.append(body)
            if len(asked) > 2:
                said["meta_info"]["input_token_logprobs"][-1][0] -= 0.5
        return said

    with pytest.raises(Unscorable, match=r"a text scores differently: by 0.5 when asked again, by 0.5 among 8"):
        probe(engine("sglang", forgetful))

"""Is it found out what a server makes of a message? llama.cpp with the tiny model, protocol doubles, and scripts."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pytest_kitt import shipped
from pytest_kitt.cards import EngineCard, load_engines
from pytest_kitt.engine.base import Access, RunningEngine
from pytest_kitt.engine.start import Place, started
from pytest_kitt.evals import drift
from pytest_kitt.evals.drift import Finding
from pytest_kitt.matrix import Cell, build
from pytest_kitt.model import chat, reference
from pytest_kitt.model.chat import ChatFacts
from pytest_kitt.settings import Settings
from tests.doubles import tokens
from tests.doubles.running import PATIENCE_S, running
from tests.retold import retold

TINY = shipped.TINY_MODEL
TEMPLATE, ADDS = "tokenizer.chat_template", "tokenizer.ggml.add_bos_token"
OWN = chat.read(TINY)
BARE = OWN.template.removeprefix("{{- bos_token }}")
MADE_UP = ChatFacts(tokens.CHAT_TEMPLATE, "made up", {"bos_token": tokens.BOS_TEXT}, bos_id=tokens.BOS, adds_bos=True)
QUESTIONS = [json.loads(line) for line in shipped.TINY_QUESTIONS.read_text().splitlines()[:90]]

Run = Callable[..., RunningEngine]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts the embedded llama.cpp with the tiny model, of which some entries may be others."""
    pytest.importorskip("xllamacpp", reason="needs pytest-kitt[embedded]")
    with ExitStack() as life:

        def run(said: dict[str, Any] | None = None, **arguments: str) -> RunningEngine:
            cards = load_engines()
            ref = "tiny" if said is None else str(retold(TINY, tmp_path / "other.gguf", said))
            given = {"threads": "1", **arguments}
            settings = Settings(
                model=(ref,), runtime="embedded", engine=("llama_cpp",), engine_arg=tuple(given.items())
            )
            (cell,) = build(settings, cards)
            mark = uuid.uuid4().hex  # all that carries it ends with the engine
            return life.enter_context(started(cell, cards["llama_cpp"], settings, Place(tmp_path, mark)))

        yield run


@pytest.fixture
def double(tmp_path: Path) -> Iterator[Run]:
    """An engine that a double stands for, with its shipped card; its chat template writes so many BOS."""
    with ExitStack() as life:

        def double(name: str, bos: int = 1) -> RunningEngine:
            env = {tokens.CHAT_BOS_ENV: str(bos), "KITT_DOUBLE_LOAD_S": "0"}
            url = life.enter_context(running(name, tmp_path / name, env=env)).url
            return endpoint(load_engines()["exllamav3" if name == "tabby" else name], url, life)

        yield double


def endpoint(card: EngineCard, url: str, life: ExitStack, **options: Any) -> RunningEngine:
    """An engine of which nothing but its address is known."""
    http = life.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE_S, **options))
    return RunningEngine(Cell(card.name, reference.served("tiny"), "endpoint"), card, Access(url), http=http)


def right(engine: RunningEngine, *, by_chat: bool) -> float:
    """The share of questions that are answered rightly."""

    def ask(row: dict[str, Any]) -> bool:
        question = row["question"]
        said = engine.chat(question) if by_chat else engine.generate(f"Q: {question}\nAnswer:")
        return bool(said.output.strip() == row["answer"])

    with ThreadPoolExecutor(4) as threads:
        return sum(threads.map(ask, QUESTIONS)) / len(QUESTIONS)


def counts(found: Finding) -> tuple[int | None, int | None, int | None]:
    """Numbers of BOS: seen, wanted, and of completions."""
    return found.bos, found.bos_wanted, found.bos_completions


# -- llama.cpp


def test_the_tiny_model_is_asked_in_its_own_template(run: Run) -> None:
    """One BOS both ways and the same answer; it is asked once, and a new start is asked anew."""
    engine = run()
    found = drift.checked(engine)
    assert (found.verdict, found.by, found.source) == ("ok", "tokens", TEMPLATE)
    assert counts(found) == (1, 1, 1)
    assert found.same_answer is True
    assert found.logprob_delta == pytest.approx(0, abs=1e-3)
    assert drift.checked(engine) is found
    assert drift.checked(run()) is not found


def test_a_template_without_bos_is_repaired(run: Run) -> None:
    """llama.cpp puts the BOS there itself, and no score is lost; the finding says whose it is."""
    engine = run({TEMPLATE: BARE})
    found = drift.checked(engine)
    assert (found.verdict, counts(found)) == ("ok", (1, 1, 1))
    assert "which the template does not write and the server adds" in found.why
    assert right(engine, by_chat=True) == right(engine, by_chat=False) > 0.7


def test_a_missing_bos_costs_the_score(run: Run) -> None:
    """Of a conversion that has lost the BOS both ways, the original model's files tell; both scores fall alike."""
    whole = right(run(), by_chat=False)
    engine = run({TEMPLATE: BARE, ADDS: False})
    found = drift.look(engine, facts=dataclasses.replace(OWN, template=BARE))
    assert (found.verdict, counts(found)) == ("missing BOS", (0, 1, 0))
    assert "begins without a BOS ('<|begin|>')" in found.why
    assert "begin the template with {{ bos_token }}" in found.why
    assert found.same_answer is False
    assert whole > 0.7
    assert right(engine, by_chat=True) < whole - 0.2
    found = drift.look(engine, facts=OWN)
    assert "writes one, what the server makes of it has none" in found.why


def test_completions_without_the_bos(run: Run) -> None:
    """The chat has it from its template; the server's tokenizer adds none, though the model's does."""
    engine = run({ADDS: False})
    found = drift.look(engine, facts=OWN)
    assert (found.verdict, counts(found), found.same_answer) == ("completions without BOS", (1, 1, 0), True)
    assert right(engine, by_chat=False) < right(engine, by_chat=True) - 0.2
    found = drift.look(engine)  # by its own file that is as it should be
    assert found.verdict == "ok"
    assert found.why.endswith("a prompt by completions has none, as the tokenizer says")


def test_a_double_bos(run: Run) -> None:
    """llama.cpp takes out one that the template writes, where it adds one itself, and no second one."""
    found = drift.checked(run({TEMPLATE: "{{- bos_token }}" + OWN.template}))
    assert (found.verdict, counts(found)) == ("double BOS", (2, 1, 1))
    assert "begins with 2 BOS ('<|begin|>'): the model's template writes more than one" in found.why
    assert found.same_answer is False


def test_another_template(run: Run) -> None:
    """A server that was given one of its own: where the prompts part is shown, and what it costs."""
    engine = run(**{"--chat-template": "chatml"})
    found = drift.checked(engine)
    assert (found.verdict, found.same_answer) == ("different template", False)
    assert "from character 0 on the prompt of a chat has '<|im_start|>user\\n" in found.why
    assert r"makes 'Q: 36+20=?\nAnswer:'; give the server the model's own template" in found.why
    assert right(engine, by_chat=True) < 0.3
    assert right(engine, by_chat=False) > 0.7


def test_a_model_without_a_template(run: Run) -> None:
    """llama.cpp chats all the same, in a template that the model has never seen."""
    found = drift.checked(run({TEMPLATE: None}))
    assert found.verdict == "different template"
    assert r"uses one that the model may not know ('<|im_start|>user\n36+20=?')" in found.why


def test_a_template_that_makes_no_prompt(run: Run) -> None:
    """What a stranger wrote is shown escaped; nothing is known then."""
    found = drift.checked(run({TEMPLATE: OWN.template + "{{ ''.__class__.__mro__ }}"}))
    assert found.verdict == "unknown"
    assert "cannot be rendered: \"access to attribute '__class__'" in found.why


def test_the_servers_word_in_place_of_files(run: Run) -> None:
    """An endpoint's template is that which llama.cpp says that it uses."""
    engine = run()
    with ExitStack() as life:
        found = drift.checked(endpoint(engine.card, engine.url, life))
    assert (found.verdict, found.source, counts(found)) == ("ok", "the server's /props", (1, 1, 1))


# -- doubles


@pytest.mark.parametrize("name", ["vllm", "tgi", "sglang", "tabby", "ollama"])
@pytest.mark.parametrize("bos, verdict", [(0, "missing BOS"), (1, "ok"), (2, "double BOS")])
def test_bos_of_other_servers(double: Run, name: str, bos: int, verdict: str) -> None:
    """By the tokens that vLLM and TGI say, by the number of them elsewhere, and on Ollama without any tokenizer."""
    found = drift.look(double(name, bos), facts=MADE_UP)
    assert (found.verdict, found.by) == (verdict, "tokens" if name in {"vllm", "tgi"} else "counts")
    assert counts(found) == (bos, 1, None if name == "ollama" else 1)
    assert found.same_answer is (bos == 1)


@pytest.mark.parametrize("name", ["vllm", "sglang", "ollama"])
def test_a_template_without_bos_elsewhere(double: Run, name: str) -> None:
    """No server of these adds one to a chat: the tokenizer's BOS is missing."""
    bare = MADE_UP.template.removeprefix("{{ bos_token }}")
    found = drift.look(double(name, 0), facts=dataclasses.replace(MADE_UP, template=bare))
    assert found.verdict == "missing BOS"
    assert "the tokenizer begins a plain prompt with one" in found.why


@pytest.mark.parametrize(
    "name, shown",
    [
        ("vllm", "from character 15 on the prompt of a chat has '>36+20=?' where"),
        ("tgi", "from character 15 on the prompt of a chat has '>36+20=?' where"),
        ("sglang", "the prompt of a chat is not what the model's template (made up) makes"),
        ("ollama", "the prompt of a chat is not what the model's template (made up) makes"),
    ],
)
def test_another_template_elsewhere(double: Run, name: str, shown: str) -> None:
    """Where the server shows its prompt, the first difference; else that there is one."""
    longer = dataclasses.replace(MADE_UP, template=MADE_UP.template + "\n\n### Answer:")
    found = drift.look(double(name), facts=longer)
    assert found.verdict == "different template"
    assert shown in found.why


def test_another_template_of_the_same_length(double: Run) -> None:
    """As many tokens tell nothing; the answers do."""
    other = dataclasses.replace(MADE_UP, template=MADE_UP.template.replace("|", "!"))
    found = drift.look(double("sglang"), facts=other)
    assert (found.verdict, found.by, found.same_answer) == ("different template", "counts", False)
    assert "the prompts are equally long, and yet a chat answers '" in found.why


def test_a_bos_without_a_number(double: Run) -> None:
    """It cannot be found among tokens: they are counted."""
    odd = dataclasses.replace(MADE_UP, special={"bos_token": "<odd bos>"}, bos_id=None)
    found = drift.look(double("vllm"), facts=odd)
    assert (found.verdict, found.by, found.bos) == ("ok", "counts", 1)


def test_nothing_to_compare_with(double: Run) -> None:
    """No file, and a server that keeps its template to itself."""
    found = drift.checked(double("vllm"))
    assert found.verdict == "unknown"
    assert found.why == "the model's files are not here, and the server does not say its chat template"


def test_nobody_says_what_the_tokenizer_does(double: Run) -> None:
    """Counts mean nothing then."""
    found = drift.look(double("ollama"), facts=dataclasses.replace(MADE_UP, adds_bos=None))
    assert found == Finding("unknown", "ollama has no tokenizer to compare the prompt of a chat with")


# -- servers that answer by a script


def scripted(life: ExitStack, **said: Any) -> RunningEngine:
    """A server that tokenizes by characters and answers ``chat`` and ``completions`` with these texts and numbers."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        path = request.url.path
        if path == "/tokenize" and "messages" in body:
            return httpx.Response(200, json={"tokens": [1, *map(ord, f"{drift.QUESTION}>")]})
        if path == "/tokenize":
            return httpx.Response(200, json={"tokens": [1, *map(ord, body["prompt"])]})
        kind = "chat" if path.endswith("chat/completions") else "completions"
        if (given := said[kind]) is None:
            return httpx.Response(400, json={"error": {"message": "no \x1b[31mtemplate"}})
        text, logprob, count = given
        entry = [{"token": text, "logprob": logprob}]
        choice = {"message": {"content": text}} if kind == "chat" else {"text": text}
        usage = {} if count is None else {"usage": {"prompt_tokens": count, "completion_tokens": 1}}
        shown = {} if logprob is None else {"logprobs": {"content": entry}}
        return httpx.Response(200, json={"choices": [{**choice, **shown, "finish_reason": "stop"}], **usage})

    card = EngineCard.model_validate(
        {
            "name": "scripted",
            "description": "x",
            "tokenize": {"path": "/tokenize", "text": "prompt"},
            "chat_prompt": {"path": "/tokenize", "tokens": "tokens"} if said.get("shows", True) else None,
            "capabilities": ["logprobs"],
        }
    )
    return endpoint(card, "http://scripted", life, transport=httpx.MockTransport(answer))


PLAIN = ChatFacts("{{ bos_token }}{{ messages[0].content }}>", "x", {"bos_token": "~"}, bos_id=1, adds_bos=True)
LENGTH = 2 + len(drift.QUESTION)


@pytest.mark.parametrize(
    "said, verdict, same",
    [
        ({"chat": (" 56", -0.5, LENGTH), "completions": (" 56", -0.55, LENGTH)}, "ok", True),
        ({"chat": ("56", -0.5, LENGTH), "completions": (" 56", -0.5, LENGTH)}, "ok", True),
        ({"chat": (" 56", -0.5, LENGTH), "completions": (" 56", -0.7, LENGTH)}, "different answers", False),
        ({"chat": (" 57", -0.5, LENGTH), "completions": (" 56", -0.5, LENGTH)}, "different answers", False),
        ({"chat": (" 56", None, LENGTH), "completions": (" 56", None, LENGTH)}, "ok", True),
        ({"chat": (" 57", None, LENGTH), "completions": (" 56", None, LENGTH)}, "different answers", False),
        ({"chat": (" 56", -0.5, LENGTH), "completions": None}, "ok", None),
        ({"chat": (" 56", -0.5, None), "completions": (" 56", -0.5, None)}, "ok", True),
        ({"chat": (" 56", -0.5, LENGTH + 1), "completions": (" 56", -0.5, LENGTH)}, "double BOS", True),
        ({"chat": (" 56", -0.5, LENGTH + 9), "completions": (" 56", -0.5, LENGTH)}, "different template", True),
        ({"chat": (" 56", -0.5, None), "completions": (" 56", -0.5, None), "shows": False}, "unknown", None),
        ({"chat": None, "completions": (" 56", -0.5, LENGTH)}, "unknown", None),
    ],
)  # fmt: skip
def test_by_prompt_and_by_answer(said: dict[str, Any], verdict: str, same: bool | None) -> None:
    """The server's word holds where it counts as many tokens; one prompt has one answer, to a tenth of a nat."""
    with ExitStack() as life:
        found = drift.look(scripted(life, **said), facts=PLAIN)
    assert (found.verdict, found.same_answer) == (verdict, same)
    assert found.drifts is (verdict not in ("ok", "unknown"))
    assert "\x1b" not in found.why

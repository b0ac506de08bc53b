"""Does an engine's chat API give the model its own template, with the right BOS? And its completions, a BOS at all?

What the prompt should be comes from the model's files: its template, rendered as Hugging Face's libraries do, behind
one BOS where the template writes one or the tokenizer adds one. What it is comes from the server: its own word for a
chat's prompt, else the number of prompt tokens that it counts. Then the answers must agree: the same question by chat,
and by completions on the prompt as it should be, at temperature 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Literal

from pytest_kitt.dialect import apis
from pytest_kitt.engine.base import GenerationResult, RunningEngine
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.evals.asking import Asking
from pytest_kitt.evals.rendering import Unrenderable, render
from pytest_kitt.model import chat
from pytest_kitt.model.chat import ChatFacts
from pytest_kitt.model.config import Damaged
from pytest_kitt.settings import Api

Verdict = Literal[
    "ok", "missing BOS", "double BOS", "different template", "different answers", "completions without BOS", "unknown"
]
QUESTION = "36+20=?"
TOLERANCE = 0.1  # between log-probabilities of one token behind one prompt, in nats
_MOST_BOS = 2  # a prompt that is longer than by so many tokens has another text
_SHOWN_CHARS, _LEAD_CHARS, _MESSAGE_CHARS = 24, 8, 200
_OWN = "give the server the model's own template"


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about the prompts of an engine.

    Attributes:
        verdict: ``ok``, ``unknown``, or the name of the drift.
        why: one sentence: what is so, why, and what helps.
        by: how the prompt of a chat was seen: ``tokens``, ``counts``, or empty.
        source: where the model's template was found; empty where none was.
        bos: how many BOS the prompt of a chat begins with; None when that is not known.
        bos_wanted: how many it should begin with.
        bos_completions: how many the server puts in front of a prompt by completions.
        same_answer: whether chat and completions answer alike; None where they cannot be compared.
        logprob_delta: largest difference between the log-probabilities of their tokens, in nats.

    """

    verdict: Verdict
    why: str
    by: str = ""
    source: str = ""
    bos: int | None = None
    bos_wanted: int | None = None
    bos_completions: int | None = None
    same_answer: bool | None = None
    logprob_delta: float | None = None

    @property
    def drifts(self) -> bool:
        """Whether something is wrong."""
        return self.verdict not in ("ok", "unknown")

    def to_json(self) -> dict[str, Any]:
        """As it is stored with a result."""
        return dataclasses.asdict(self)


class _NotKnown(Exception):
    """What the prompt is, or should be, cannot be known; says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """The prompt that the model asks for.

    Attributes:
        facts: what its files say.
        bodies: the prompt without any BOS in front; a second one where the template writes a date, which in UTC is
            another.
        written: how many BOS the template writes.
        bos: how many there should be.

    """

    facts: ChatFacts
    bodies: tuple[str, ...]
    written: int
    bos: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """The prompt that a chat has.

    Attributes:
        by: ``tokens`` or ``counts``.
        bos: how many it begins with.
        same: behind them it is what the template makes.
        text: it without them, where the server says it.

    """

    by: str
    bos: int
    same: bool
    text: str = ""


def checked(engine: RunningEngine, *, api: Api | None = None) -> Finding:
    """What ``look`` finds, asked once per start of the engine."""
    name = f"chat_template:{api}"
    if name not in engine.found:
        engine.found[name] = look(engine, api=api)
    found: Finding = engine.found[name]
    return found


def look(engine: RunningEngine, *, api: Api | None = None, facts: ChatFacts | None = None) -> Finding:
    """Compares an engine's prompts with what its model asks for, by a handful of untimed requests.

    Args:
        engine: who is asked.
        api: the one whose chats are looked at; by default the first of its card that takes messages.
        facts: what the model says of itself; by default its files are read, or the server is asked.

    Raises:
        EngineDiedError: it cannot answer any more.

    """
    try:
        return _look(Asking(engine, api or _chat_api(engine)), _facts(engine) if facts is None else facts)
    except _NotKnown as unknown:
        return Finding("unknown", str(unknown))


def _look(asking: Asking, facts: ChatFacts) -> Finding:
    try:
        answer = asking.chat(QUESTION)
    except EngineRequestError as error:
        raise _NotKnown(f"the chat API does not answer: {_shown(str(error), _MESSAGE_CHARS)}") from error
    asking = dataclasses.replace(asking, bos_id=_bos_id(asking, facts))
    if not facts.template:
        return _without_template(asking, facts)
    wanted = _wanted(asking, facts)
    seen = _seen(asking, wanted, answer)
    verdict, why = _judged(wanted, seen)
    found = Finding(verdict, why, seen.by, facts.source, seen.bos, wanted.bos, asking.added_bos(QUESTION))
    return _with_answers(asking, found, wanted, answer)


def _chat_api(engine: RunningEngine) -> Api:
    for api in engine.card.dialects:
        if apis.DIALECTS[api].chat:
            return api
    raise _NotKnown(f"engine {engine.card.name} takes no messages")


# -- what the prompt should be


def _facts(engine: RunningEngine) -> ChatFacts:
    """What the model's files say, or the server in their place."""
    if path := engine.cell.model.path:
        try:
            return chat.read(Path(path))
        except (Damaged, OSError) as error:
            why = _shown(str(error), _MESSAGE_CHARS)
            raise _NotKnown(f"the model's chat template cannot be read: {why}") from error
    card = engine.card.chat_template
    with contextlib.suppress(EngineRequestError):
        said = engine.get(card.path) if card else None
        if card and isinstance(said, dict) and isinstance(template := said.get(card.field), str) and template:
            named = {"bos_token": said.get(card.bos), "eos_token": said.get(card.eos)}
            special = {name: text for name, text in named.items() if isinstance(text, str) and text}
            return ChatFacts(template, f"the server's {card.path}", special)
    raise _NotKnown("the model's files are not here, and the server does not say its chat template")


def _bos_id(asking: Asking, facts: ChatFacts) -> int | None:
    """The BOS's number by the model's files, else by the server's tokenizer."""
    if facts.bos_id is not None or not facts.bos:
        return facts.bos_id
    ids = asking.tokens(facts.bos, special=False)
    return ids[0] if ids is not None and len(ids) == 1 else None


def _wanted(asking: Asking, facts: ChatFacts) -> _Wanted:
    try:
        prompts = render(facts.template, [{"role": "user", "content": QUESTION}], facts.special)
    except Unrenderable as error:
        why = _shown(str(error), _MESSAGE_CHARS)
        raise _NotKnown(f"the chat template ({facts.source}) cannot be rendered: {why}") from error
    bodies = tuple(_without(facts.bos, prompt) for prompt in prompts)
    written = (len(prompts[0]) - len(bodies[0])) // len(facts.bos) if facts.bos else 0
    adds = facts.adds_bos
    if adds is None and asking.bos_id is not None and (tokens := asking.tokens(QUESTION)) is not None:
        adds = asking.split(tokens)[0] > 0
    if adds is None and not written and facts.bos:
        raise _NotKnown("nobody says whether the model's tokenizer begins a prompt with a BOS")
    return _Wanted(facts, bodies, written, 1 if adds or written else 0)


# -- what it is


def _seen(asking: Asking, wanted: _Wanted, answer: GenerationResult) -> _Seen:
    text, tokens = asking.chat_prompt(QUESTION)
    count = answer.prompt_tokens
    told = tokens is not None and count in (None, len(tokens))  # else its word is not what it does
    if tokens is not None and told and (asking.bos_id is not None or not wanted.bos):
        bos, rest = asking.split(tokens)
        # behind a BOS and at the beginning of a text: some tokenizers make a difference
        whole = (wanted.facts.bos * wanted.written + body for body in wanted.bodies)
        same = any(rest == asking.plain_tokens(body) for body in (*wanted.bodies, *whole))
        return _Seen("tokens", bos, same, _without(wanted.facts.bos, text))
    if count is None:
        raise _NotKnown(f"{asking.engine.card.name} neither shows the prompt of a chat nor counts its tokens")
    bos = count - _length(asking, wanted)
    same = 0 <= bos <= _MOST_BOS
    return _Seen("counts", bos if same else 0, same)


def _length(asking: Asking, wanted: _Wanted) -> int:
    """How many tokens the prompt should have behind its BOS."""
    body = wanted.bodies[0]
    if (tokens := asking.plain_tokens(body)) is not None:
        return len(tokens)
    counted, adds = asking.counted(body), wanted.facts.adds_bos
    if counted is None or adds is None:
        raise _NotKnown(f"{asking.engine.card.name} has no tokenizer to compare the prompt of a chat with")
    return counted - adds


# -- the verdict


def _judged(wanted: _Wanted, seen: _Seen) -> tuple[Verdict, str]:
    bos = _shown(wanted.facts.bos)
    if not seen.same:
        return "different template", _difference(wanted, seen)
    if seen.bos < wanted.bos:
        return "missing BOS", f"the prompt of a chat begins without a BOS ({bos}): {_why_missing(wanted)}"
    if seen.bos > 1:
        return "double BOS", f"the prompt of a chat begins with {seen.bos} BOS ({bos}): {_why_double(wanted)}"
    if seen.bos > wanted.bos:
        return "different template", f"the prompt of a chat begins with a BOS ({bos}) that the model does not ask for"
    front = "behind one BOS" if seen.bos else "without a BOS, as the model has it"
    repaired = ", which the template does not write and the server adds" if seen.bos > wanted.written else ""
    return "ok", f"a chat has the model's own template ({wanted.facts.source}), {front}{repaired}"


def _why_missing(wanted: _Wanted) -> str:
    if wanted.written:
        return f"the model's template ({wanted.facts.source}) writes one, what the server makes of it has none; {_OWN}"
    return (
        f"the model's template ({wanted.facts.source}) writes none and the server adds none, though the tokenizer "
        "begins a plain prompt with one; begin the template with {{ bos_token }}"
    )


def _why_double(wanted: _Wanted) -> str:
    if wanted.written > 1:
        return "the model's template writes more than one; write {{ bos_token }} once"
    if wanted.written:
        return "the template writes one and the server adds one; take {{ bos_token }} out, or let the server add none"
    return f"the model's template writes none; {_OWN}"


def _difference(wanted: _Wanted, seen: _Seen) -> str:
    """Where the prompt leaves the model's template, as far as the server shows it."""
    source, expected = wanted.facts.source, wanted.bodies[0]
    if not seen.text:
        return f"the prompt of a chat is not what the model's template ({source}) makes; {_OWN}"
    pairs = enumerate(zip(expected, seen.text, strict=False))
    at = next((place for place, (a, b) in pairs if a != b), min(len(expected), len(seen.text)))
    return (
        f"from character {at} on the prompt of a chat has {_around(seen.text, at)} where the model's template "
        f"({source}) makes {_around(expected, at)}; {_OWN}"
    )


def _without_template(asking: Asking, facts: ChatFacts) -> Finding:
    """A GGUF file that has none, and a server that chats all the same; a folder may have one in a form of its own."""
    if facts.source != chat.GGUF_TEMPLATE:
        raise _NotKnown("the model has no chat template that can be read")
    text, _ = asking.chat_prompt(QUESTION)
    shown = f" ({_around(text, 0)})" if text else ""
    why = f"the model's file has no chat template, so the server uses one that the model may not know{shown}"
    return Finding("different template", f"{why}; ask by completions, or give the server the right one")


def _with_answers(asking: Asking, found: Finding, wanted: _Wanted, answer: GenerationResult) -> Finding:
    """The finding with what the answers say, and with what completions lack."""
    adds = wanted.facts.adds_bos if found.bos_completions is None else found.bos_completions
    plain = asking.completion(("" if adds else wanted.facts.bos * wanted.bos) + wanted.bodies[0])
    same, delta = _alike(answer, plain)
    found = dataclasses.replace(found, same_answer=same, logprob_delta=delta)
    if found.verdict != "ok":
        return found
    if same is False and plain is not None:
        far = f", log-probabilities up to {delta:.3g} apart" if delta else ""
        told = f"a chat answers {_shown(_text(answer))} and completions {_shown(_text(plain))}{far}, at temperature 0"
        if found.by == "counts":
            why = f"the prompts are equally long, and yet {told}; {_OWN}"
            return dataclasses.replace(found, verdict="different template", why=why)
        why = f"the prompts are the same, and yet {told}: find out what else the chat API adds or samples"
        return dataclasses.replace(found, verdict="different answers", why=why)
    if found.bos_completions == 0 and wanted.facts.adds_bos:
        bos = _shown(wanted.facts.bos)
        why = f"a prompt by completions begins without the BOS ({bos}) that the tokenizer adds; let the server add it"
        return dataclasses.replace(found, verdict="completions without BOS", why=why)
    if found.bos_completions == 0 and wanted.bos:
        why = f"{found.why}; a prompt by completions has none, as the tokenizer says"
        return dataclasses.replace(found, why=why)
    return found


def _alike(one: GenerationResult, other: GenerationResult | None) -> tuple[bool | None, float | None]:
    """Whether two answers are the same, and how far their log-probabilities are apart; None where it cannot be said."""
    if other is None:
        return None, None
    parsed = bool(one.reasoning or one.tool_calls)  # then the text is not all that was written
    texts = None if parsed or not (one.output or other.output) else one.output.strip() == other.output.strip()
    if not one.logprobs or not other.logprobs:
        return texts, None
    pairs = list(zip(one.logprobs, other.logprobs, strict=False))
    delta = max(abs(a.logprob - b.logprob) for a, b in pairs)
    return (bool(texts) or all(a.token == b.token for a, b in pairs)) and delta <= TOLERANCE, delta


def _without(bos: str, prompt: str) -> str:
    """A prompt without any BOS in front of it."""
    while bos and prompt.startswith(bos):
        prompt = prompt.removeprefix(bos)
    return prompt


def _text(answer: GenerationResult) -> str:
    return answer.output or answer.reasoning or ""


def _around(text: str, at: int) -> str:
    return _shown(text[max(0, at - _LEAD_CHARS) : at + _SHOWN_CHARS])


def _shown(text: str, most: int = 40) -> str:
    """A short piece of what a stranger wrote, with everything escaped that steers a terminal."""
    return repr(text[:most])

"""By which ways can an API say how likely a text is? Pure: for each what is asked, and how the answers are read.

========================  ==============================================================================  ============
way                       what is asked                                                                   engines
========================  ==============================================================================  ============
echo, echo_text           /v1/completions with ``echo`` and ``logprobs``; prompts as token ids, as text   vLLM
prefill                   /generate with ``decoder_input_details``: no greedy (router/src/lib.rs, Details)  TGI
input_logprobs            /generate with ``return_logprob`` from the last token of the context on         SGLang
grammar                   /completion with a grammar that allows these tokens alone, one request          llama.cpp
token_by_token            /completion with one token biased so that it is taken, a request for each       llama.cpp
first_token_top20         /api/generate: one token and the twenty likeliest; no more than an estimate     Ollama
========================  ==============================================================================  ============

llama.cpp ignores ``echo``. What it says of the tokens that it generates (``n_probs``) is computed before the sampler,
and so before grammar and bias: a token that is forced has the log-probability that it would have had anyway.

What servers say is read here with suspicion: whatever does not fit raises Unscorable, and nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pytest_kitt.errors import Unscorable

Body = dict[str, Any]

_ROUNDING = 1e-4  # a sum over the vocabulary is not exactly 1: a certain token can be a little more than certain
_FORCED = 1e6
_TOP = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """A context and what may follow it.

    Attributes:
        context: text, without white space at its end.
        continuation: text, which begins with the white space between both.
        context_ids: the context's tokens, empty where the engine does not tokenize.
        ids: the continuation's, likewise.

    """

    context: str
    continuation: str
    context_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """How likely a continuation is.

    Attributes:
        logprob: natural logarithm, summed over its tokens; -inf when an estimate found it too unlikely to say.
        greedy: greedy decoding would have written it; None when the API does not say.
        tokens: how many tokens that are.

    """

    logprob: float
    greedy: bool | None
    tokens: int


class Way(Protocol):
    """One way to find out how likely a continuation is."""

    @property
    def exact(self) -> bool:
        """Its numbers are the model's; else they are an estimate, and what rests on them has a name of its own."""
        ...

    @property
    def by_ids(self) -> bool:
        """It needs the token ids of a pair."""
        ...

    @property
    def path(self) -> str:
        """Where it asks."""
        ...

    def bodies(self, pair: Pair, model: str) -> list[Body]:
        """What is asked, in any order."""
        ...

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """What the answers, in the order of the requests, say; Unscorable when they do not."""
        ...


@dataclass(frozen=True, slots=True)
class Echo:
    """The server repeats the prompt, with the log-probability of each of its tokens."""

    by_ids: bool
    exact: bool = True
    path: str = "/v1/completions"

    def bodies(self, pair: Pair, model: str) -> list[Body]:
        """One request; one token more is generated, as not every server does without."""
        prompt: Any = [*pair.context_ids, *pair.ids] if self.by_ids else pair.context + pair.continuation
        body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, "seed": 0}
        return [{"model": model, **body, "stream": False}]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """The tokens of the prompt behind those of the context; where nobody counts them, those of its last text."""
        said = _field(_first(_field(answers[0], "choices")), "logprobs")
        values = _list(said, "token_logprobs")
        begin, end = self._ids_at(pair, len(values)) if pair.ids else _text_at(pair, _list(said, "tokens"))
        logprobs = [_logprob(value) for value in values[begin:end]]
        return Scored(math.fsum(logprobs), _likeliest(logprobs, said, begin, end), len(logprobs))

    @staticmethod
    def _ids_at(pair: Pair, said: int) -> tuple[int, int]:
        begin, end = len(pair.context_ids), len(pair.context_ids) + len(pair.ids)
        if said not in (end, end + 1):
            raise Unscorable(f"{said} log-probabilities came for {end} prompt tokens: the server does not echo them")
        return begin, end


@dataclass(frozen=True, slots=True)
class InputLogprobs:
    """SGLang's own API says how likely the input is, from a place on: the first entry there is always null."""

    exact: bool = True
    by_ids: bool = True
    path: str = "/generate"

    def bodies(self, pair: Pair, model: str) -> list[Body]:  # noqa: ARG002 - the server has one model
        """One request."""
        body = {
            "input_ids": [*pair.context_ids, *pair.ids],
            "sampling_params": {"temperature": 0, "max_new_tokens": 1},
            "return_logprob": True,
            "logprob_start_len": len(pair.context_ids) - 1,
            "top_logprobs_num": 1,
            "stream": False,
        }
        return [body]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """Entries of log-probability and token id, the last of which are the continuation's."""
        said, n = _field(answers[0], "meta_info"), len(pair.ids)
        entries = _list(said, "input_token_logprobs")[-n:]
        _same(pair, [_entry(entry)[1] for entry in entries])
        logprobs = [_logprob(_entry(entry)[0]) for entry in entries]
        likeliest = [_entry(_first(top))[1] for top in _list(said, "input_top_logprobs")[-n:]]
        return Scored(math.fsum(logprobs), likeliest == [*pair.ids], n)


@dataclass(frozen=True, slots=True)
class Prefill:
    """TGI's own API says how likely the input is, not what would have been likelier."""

    exact: bool = True
    by_ids: bool = True
    path: str = "/generate"

    def bodies(self, pair: Pair, model: str) -> list[Body]:  # noqa: ARG002 - the server has one model
        """One request, as text: the API takes no token ids."""
        parameters = {"details": True, "decoder_input_details": True, "max_new_tokens": 1, "do_sample": False}
        return [{"inputs": pair.context + pair.continuation, "parameters": parameters}]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """Entries of id and log-probability, the last of which are the continuation's."""
        entries = _list(_field(answers[0], "details"), "prefill")
        if not entries:
            raise Unscorable("details.prefill is empty; start the server with --enable-prefill-logprobs")
        entries = entries[-len(pair.ids) :]
        _same(pair, [_field(entry, "id") for entry in entries])
        logprobs = [_logprob(_field(entry, "logprob")) for entry in entries]
        return Scored(math.fsum(logprobs), None, len(logprobs))


@dataclass(frozen=True, slots=True)
class Grammar:
    """llama.cpp generates the continuation because a grammar allows nothing else, and says how likely it was."""

    exact: bool = True
    by_ids: bool = True
    path: str = "/completion"

    def bodies(self, pair: Pair, model: str) -> list[Body]:  # noqa: ARG002 - the server has one model
        """One request; the grammar names tokens, as a text could be written with others."""
        grammar = "root ::= " + " ".join(f"<[{token}]>" for token in pair.ids)
        return [_generate([*pair.context_ids], len(pair.ids), grammar=grammar)]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """One entry a token."""
        return _generated(pair, _list(answers[0], "completion_probabilities"))


@dataclass(frozen=True, slots=True)
class TokenByToken:
    """llama.cpp generates one token behind each beginning of the continuation, the next one by a bias."""

    exact: bool = True
    by_ids: bool = True
    path: str = "/completion"

    def bodies(self, pair: Pair, model: str) -> list[Body]:  # noqa: ARG002 - the server has one model
        """A request for each token."""
        return [
            _generate([*pair.context_ids, *pair.ids[:place]], 1, logit_bias=[[token, _FORCED]])
            for place, token in enumerate(pair.ids)
        ]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """The one entry of each answer."""
        return _generated(pair, [_first(_field(answer, "completion_probabilities")) for answer in answers])


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Ollama says which twenty tokens are likeliest behind the context: an estimate by the first token alone."""

    exact: bool = False
    by_ids: bool = False
    path: str = "/api/generate"

    def bodies(self, pair: Pair, model: str) -> list[Body]:
        """One request; all choices of a question ask the same."""
        body = {"raw": True, "stream": False, "logprobs": True, "top_logprobs": _TOP}
        options = {"num_predict": 1, "temperature": 0}
        return [{"model": model, "prompt": pair.context, **body, "options": options}]

    def read(self, pair: Pair, answers: Sequence[Any]) -> Scored:
        """The longest of the twenty with which the continuation begins; -inf when there is none."""
        said = _first(_field(answers[0], "logprobs"))
        tops = [(_field(top, "token"), _logprob(_field(top, "logprob"))) for top in _list(said, "top_logprobs")]
        fitting = [top for top in tops if isinstance(top[0], str) and top[0].strip()]
        fitting = [top for top in fitting if pair.continuation.startswith(top[0])]
        if not tops:
            raise Unscorable("top_logprobs is empty")
        if not fitting:
            return Scored(-math.inf, greedy=False, tokens=1)
        token, logprob = max(fitting, key=lambda top: len(top[0]))
        return Scored(logprob, greedy=token == _field(said, "token"), tokens=1)


WAYS: dict[str, Way] = {
    "echo": Echo(by_ids=True),
    "echo_text": Echo(by_ids=False),
    "input_logprobs": InputLogprobs(),
    "prefill": Prefill(),
    "grammar": Grammar(),
    "token_by_token": TokenByToken(),
    "first_token_top20": FirstToken(),
}


def _text_at(pair: Pair, tokens: Sequence[Any]) -> tuple[int, int]:
    """Which of the echoed tokens are the continuation, by their texts: the generated one may be among them."""
    texts = [token if isinstance(token, str) else "" for token in tokens]
    for end in (len(texts) - 1, len(texts)):
        if "".join(texts[:end]).endswith(pair.context + pair.continuation):
            begin = end
            while begin and sum(map(len, texts[begin:end])) < len(pair.continuation):
                begin -= 1
            if "".join(texts[begin:end]) != pair.continuation:
                raise Unscorable("one token holds the end of the context and the beginning of the continuation")
            return begin, end
    raise Unscorable("the tokens that came are not those of the prompt: the server does not echo them")


def _likeliest(logprobs: Sequence[float], said: Any, begin: int, end: int) -> bool | None:
    """Whether none of the tokens had a likelier one beside it; None when the server does not say."""
    tops = said.get("top_logprobs")
    if not isinstance(tops, list) or not all(isinstance(top, dict) and top for top in tops[begin:end]):
        return None
    return all(
        logprob >= max(map(_logprob, top.values())) for logprob, top in zip(logprobs, tops[begin:end], strict=True)
    )


def _generate(prompt: list[int], tokens: int, **forced: Any) -> Body:
    body = {"prompt": prompt, "n_predict": tokens, "n_probs": 1, "temperature": 0, "post_sampling_probs": False}
    return {**body, **forced, "stream": False}


def _generated(pair: Pair, entries: Sequence[Any]) -> Scored:
    """What llama.cpp says of the tokens that it was forced to generate."""
    _same(pair, [_field(entry, "id") for entry in entries])
    logprobs = [_logprob(_field(entry, "logprob")) for entry in entries]
    likeliest = [_field(_first(_field(entry, "top_logprobs")), "id") for entry in entries]
    return Scored(math.fsum(logprobs), likeliest == [*pair.ids], len(logprobs))


def _same(pair: Pair, ids: list[Any]) -> None:
    if ids != [*pair.ids]:
        raise Unscorable(f"the answer speaks of tokens {ids[:8]!r}, where {[*pair.ids[:8]]!r} were asked about")


def _logprob(value: Any) -> float:
    """A finite number that is not above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value <= _ROUNDING:
        raise Unscorable(f"the server says {str(value)[:40]!r} where a log-probability belongs")
    return min(float(value), 0.0)


def _field(said: Any, name: str) -> Any:
    if not isinstance(said, dict) or said.get(name) is None:
        raise Unscorable(f"the answer holds no {name!r}")
    return said[name]


def _list(said: Any, name: str) -> list[Any]:
    found = _field(said, name)
    if not isinstance(found, list):
        raise Unscorable(f"{name!r} of the answer is no list")
    return found


def _first(said: Any) -> Any:
    if not isinstance(said, list) or not said:
        raise Unscorable("the answer holds an empty list where an entry belongs")
    return said[0]


def _entry(said: Any) -> tuple[Any, Any]:
    """SGLang's log-probability, token id and text."""
    if not isinstance(said, list) or len(said) < 2:
        raise Unscorable("an entry of the answer is not a log-probability with its token id")
    return said[0], said[1]

"""How does an answer look in JSON, as a stream of events or as a whole? In vLLM's manner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.openai import Ask
from pytest_kitt.engine.simulated.probability import Likelihood, Model
from pytest_kitt.engine.simulated.text import Output

DONE = b"data: [DONE]\n\n"

_Choice = dict[str, object]


@dataclass(frozen=True, slots=True)
class Heading:
    """What every event of an answer repeats."""

    id: str
    created: int
    model: str


class Reply:
    """One answer. Its events are asked for in order, each token once, or it is asked for as a whole."""

    def __init__(self, heading: Heading, ask: Ask, output: Output, model: Model, *, cached_tokens: int | None) -> None:
        self.ask = ask
        self.output = output
        self._heading = heading
        self._model = model
        self._cached_tokens = cached_tokens
        self._offset = 0
        before, tokens = ask.prompt, output.tokens
        self._likelihoods = iter(()) if ask.logprobs is None else model.judge(before, tokens, top=ask.logprobs)

    def opening(self) -> Iterator[bytes]:
        """What goes out just before the first token."""
        if self.ask.chat:
            yield self._event([self._choice({"role": "assistant", "content": ""}, None, None)])

    def events(self, first: int, end: int) -> Iterator[bytes]:
        """The events that carry the tokens from `first` to before `end`: one, or two where reasoning ends between."""
        border = self.output.reasoning
        if first < border < end:
            yield self._tokens(first, border)
            first = border
        yield self._tokens(first, end)

    def echo(self) -> bytes:
        """The only event of an answer without a token: the prompt."""
        return self._event([self._choice(self.ask.prompt, self._logprobs(0, 0), self.output.finish_reason)])

    def closing(self) -> Iterator[bytes]:
        """What goes out after the last token."""
        if self.ask.include_usage:
            yield self._event([], usage=self._usage())
        yield DONE

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        ask, output = self.ask, self.output
        said = {"message": self._message()} if ask.chat else {"text": self._echoed(0) + output.text}
        logprobs = self._logprobs(0, len(output.pieces))
        choice: _Choice = {"index": 0, "logprobs": logprobs, "finish_reason": output.finish_reason, **said}
        body = self._envelope("chat.completion" if ask.chat else "text_completion", [choice])
        if ask.prompt_logprobs is not None:
            (body if ask.chat else choice)["prompt_logprobs"] = self._prompt_logprobs(ask.prompt_logprobs)
        return orjson.dumps(body | {"usage": self._usage()})

    def _tokens(self, first: int, end: int) -> bytes:
        output = self.output
        piece = output.pieces[first] if end - first == 1 else "".join(output.pieces[first:end])
        part = self._delta(piece, first, end) if self.ask.chat else self._echoed(first) + piece
        reason = output.finish_reason if end == len(output.pieces) else None
        logprobs = None if self.ask.logprobs is None else self._logprobs(first, end)
        return self._event([self._choice(part, logprobs, reason)])

    def _delta(self, piece: str, first: int, end: int) -> _Choice:
        if first < self.output.reasoning:
            return {"reasoning_content": piece}
        if not self.output.calls:
            return {"content": piece}
        return {"tool_calls": [{"index": 0, **self._call(first, end)}]}

    def _message(self) -> _Choice:
        output = self.output
        message: _Choice = {"role": "assistant", "content": None if output.calls else output.text}
        if output.reasoning:
            message["reasoning_content"] = "".join(output.pieces[: output.reasoning])
        if output.calls:
            message["tool_calls"] = [self._call(output.reasoning, len(output.pieces))]
        return message

    def _call(self, first: int, end: int) -> dict[str, object]:
        """What these tokens say of the call: its name comes with the first of them."""
        pieces = self.output.pieces
        if first > self.output.reasoning:
            return {"function": {"arguments": "".join(pieces[first:end])}}
        function = {"name": pieces[first], "arguments": "".join(pieces[first + 1 : end])}
        return {"id": f"call-{self._heading.id}", "type": "function", "function": function}

    def _echoed(self, first: int) -> str:
        return self.ask.prompt if self.ask.echo and first == 0 else ""

    def _logprobs(self, first: int, end: int) -> dict[str, object] | None:
        """What is said of the tokens from `first` to before `end`, and of an echoed prompt before them."""
        if self.ask.logprobs is None:
            return None
        found: list[Likelihood | str] = []
        if self.ask.echo and first == 0:
            found += self._judge_prompt(self.ask.logprobs)
        found += [next(self._likelihoods) for _ in range(first, end)]
        return _chat_logprobs(found) if self.ask.chat else self._completion_logprobs(found)

    def _judge_prompt(self, top: int) -> Iterator[Likelihood | str]:
        """Each token of the prompt; the first has nothing before it, and no probability."""
        tokens = text.split(self.ask.prompt)
        if tokens:
            yield tokens[0]
            yield from self._model.judge(tokens[0], tokens[1:], top=top)

    def _completion_logprobs(self, found: Sequence[Likelihood | str]) -> dict[str, object]:
        names = [one if isinstance(one, str) else one.token for one in found]
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {
            "text_offset": offsets,
            "token_logprobs": [None if isinstance(one, str) else one.logprob for one in found],
            "tokens": names,
            "top_logprobs": [
                None
                if isinstance(one, str)
                else {one.token: one.logprob} | {token: logprob for token, logprob, _ in one.top}
                for one in found
            ],
        }

    def _prompt_logprobs(self, top: int) -> list[dict[str, object] | None]:
        return [None if isinstance(one, str) else _by_id(one) for one in self._judge_prompt(top)]

    def _choice(self, part: object, logprobs: object, finish_reason: str | None) -> _Choice:
        name = "delta" if self.ask.chat else "text"
        return {"index": 0, name: part, "logprobs": logprobs, "finish_reason": finish_reason}

    def _event(self, choices: list[_Choice], **more: object) -> bytes:
        kind = "chat.completion.chunk" if self.ask.chat else "text_completion"
        return b"data: %b\n\n" % orjson.dumps(self._envelope(kind, choices) | more)

    def _envelope(self, kind: str, choices: list[_Choice]) -> dict[str, object]:
        heading = self._heading
        return {
            "id": heading.id,
            "object": kind,
            "created": heading.created,
            "model": heading.model,
            "choices": choices,
        }

    def _usage(self) -> dict[str, object]:
        prompt, completion = self.ask.prompt_tokens, len(self.output.pieces)
        usage: dict[str, object] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        if self._cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self._cached_tokens}
        if self.output.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.output.reasoning}
        return usage


def _chat_logprobs(found: Sequence[Likelihood | str]) -> dict[str, object]:
    return {
        "content": [
            _chat_token(one.token, one.logprob)
            | {"top_logprobs": [_chat_token(token, logprob) for token, logprob, _ in one.top]}
            for one in found
            if not isinstance(one, str)
        ]
    }


def _chat_token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _by_id(one: Likelihood) -> dict[str, object]:
    """The token itself, then the likeliest, each under its id."""
    tokens = [(one.token, one.logprob, one.rank), *one.top]
    return {
        str(text.token_id(token)): {"logprob": logprob, "rank": rank, "decoded_token": token}
        for token, logprob, rank in tokens
    }

"""Which API is spoken? For each one its path, how to ask, and who reads the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pytest_kitt.dialect import llama_cpp, ollama, openai, tgi
from pytest_kitt.dialect.answer import Answer, Reader, cut_by
from pytest_kitt.dialect.details import Details
from pytest_kitt.dialect.whole import WholeReader
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.measure.records import Failure

if TYPE_CHECKING:  # the child that sends a load does without the settings
    from pytest_kitt.settings import Api


@dataclasses.dataclass(frozen=True, slots=True)
class Dialect:
    """One API.

    Attributes:
        path: where a stream is asked for.
        body: makes the JSON object of a request.
        detail_fields: makes the fields that ask for log-probabilities and token ids.
        reader: reads what comes.
        chat: it takes a message, else a prompt as it is.
        lines: its streams are JSON lines, else server-sent events.
        unstreamed: where an answer in one piece is asked for, if elsewhere.

    """

    path: str
    body: Callable[..., dict[str, Any]]
    detail_fields: Callable[..., dict[str, Any]]
    reader: type[Reader]
    chat: bool = False
    lines: bool = False
    unstreamed: str = ""


_OPENAI = (openai.request_body, openai.detail_fields, openai.OpenAIReader)
_OLLAMA = (ollama.request_body, ollama.detail_fields, ollama.OllamaReader)
_TGI = (tgi.request_body, tgi.detail_fields, tgi.TgiReader)
_LLAMA_CPP = (llama_cpp.request_body, llama_cpp.detail_fields, llama_cpp.LlamaCppReader)
DIALECTS: Mapping[str, Dialect] = {
    "chat": Dialect("/v1/chat/completions", *_OPENAI, chat=True),
    "completions": Dialect("/v1/completions", *_OPENAI),
    "ollama-chat": Dialect("/api/chat", *_OLLAMA, chat=True, lines=True),
    "ollama-generate": Dialect("/api/generate", *_OLLAMA, lines=True),
    "tgi": Dialect("/generate_stream", *_TGI, unstreamed="/generate"),
    "llama-cpp": Dialect("/completion", *_LLAMA_CPP),
}
WHOLE = "whole"
"""No API: any JSON document is taken as it is."""


def path(api: str, *, stream: bool = True) -> str:
    """Where a request goes."""
    spoken = DIALECTS[api]
    return spoken.path if stream else spoken.unstreamed or spoken.path


def request_body(
    api: Api,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    stream: bool = True,
    logprobs: int | None = None,
    token_ids: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The JSON object of one request.

    ``logprobs`` asks for the log-probability of each token and of so many of the likeliest at its place.
    """
    spoken = DIALECTS[api]
    asked = spoken.detail_fields(chat=spoken.chat, logprobs=logprobs, token_ids=token_ids)
    return spoken.body(
        chat=spoken.chat,
        model=model,
        prompt=prompt,
        max_tokens=max_tokens,
        stream=stream,
        extra={**asked, **(extra or {})},
    )


def reader(api: str, content_type: bytes = b"", *, keep_text: bool = True, detailed: bool = False) -> Reader:
    """Who reads a response of this type."""
    if api == WHOLE:
        return WholeReader(None)
    spoken = DIALECTS[api]
    cut = cut_by(content_type, lines=spoken.lines)
    return spoken.reader(cut() if cut else None, keep_text=keep_text, detailed=detailed)


def read_document(api: str, body: bytes) -> tuple[Answer, Details]:
    """Reads an answer that was not streamed, and all that it says beside its text."""
    found = reader(api, b"application/json", detailed=True)
    assert found.details is not None  # it was asked for
    found.feed([0], [body])
    return found.finish(), found.details


def read_texts(api: str, content_type: bytes, chunks: Iterable[bytes]) -> Iterator[str]:
    """The texts of a stream's events as they come; EngineRequestError when it is no good stream."""
    found = reader(api, content_type)
    for chunk in chunks:
        before = len(found.texts)
        found.feed([0], [chunk])
        yield from (text for text in found.texts[before:] if text)
        if found.answer.failure is not Failure.NONE:
            raise EngineRequestError(found.answer.detail)
    before = len(found.texts)
    answer = found.finish()
    yield from (text for text in found.texts[before:] if text)
    if answer.failure not in (Failure.NONE, Failure.NO_TOKENS):
        raise EngineRequestError(answer.detail)

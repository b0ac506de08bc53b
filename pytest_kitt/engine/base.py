"""What can a test do with a running engine?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from pytest_kitt.cards import EngineCard
from pytest_kitt.dialect import openai
from pytest_kitt.errors import EngineRequestError
from pytest_kitt.matrix import Cell
from pytest_kitt.measure.records import Failure


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to reach an engine; the headers may hold a key and are never shown.

    Attributes:
        url: base address, without /v1.
        headers: of every request.
        ca_file: authority to trust, empty for the system's.
        timeout_s: limit of one request.

    """

    url: str
    headers: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)
    ca_file: str = ""
    timeout_s: float = 120.0

    def client(self) -> httpx.Client:
        """An HTTP client for untimed requests; the caller closes it."""
        import ssl

        verify = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else True
        return httpx.Client(
            base_url=self.url,
            headers=list(self.headers),
            verify=verify if self.url.startswith("https") else False,
            timeout=self.timeout_s,
            trust_env=False,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class GenerationResult:
    """One answer.

    Attributes:
        output: its text.
        prompt_tokens: by the server's count, None when it did not say.
        completion_tokens: likewise.
        finish_reason: as the server said.

    """

    output: str
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str


class RunningEngine:
    """An engine that answers. Untimed: what is timed goes through ``kitt_load``.

    Attributes:
        cell: what it serves.
        card: its card.
        access: how to reach it.
        version: as it says; empty when unknown.
        argv: command line that started it; empty for an endpoint.
        pid: process id, 0 for an endpoint.

    """

    def __init__(
        self,
        cell: Cell,
        card: EngineCard,
        access: Access,
        *,
        http: httpx.Client,
        version: str = "",
        argv: tuple[str, ...] = (),
        pid: int = 0,
    ) -> None:
        self.cell, self.card, self.access = cell, card, access
        self.version, self.argv, self.pid = version, argv, pid
        self._http = http

    @property
    def url(self) -> str:
        """Base address."""
        return self.access.url

    @property
    def model(self) -> str:
        """The model's name as the server knows it."""
        return self.cell.model.ref if self.cell.runtime == "endpoint" else self.cell.model.name

    @property
    def capabilities(self) -> frozenset[str]:
        """What it offers beyond generating: tokenize, force_length."""
        offers = {"tokenize": self.card.tokenize is not None, "force_length": bool(self.card.force_length)}
        return frozenset(name for name, offered in offers.items() if offered)

    def generate(self, prompt: str, *, max_tokens: int = 128, **extra: Any) -> GenerationResult:
        """Completes a prompt (``/v1/completions``), greedy; EngineRequestError when the engine says no."""
        return self._ask("completions", prompt, max_tokens, extra)

    def chat(self, message: str, *, max_tokens: int = 128, **extra: Any) -> GenerationResult:
        """Answers one user message (``/v1/chat/completions``), greedy; EngineRequestError when the engine says no."""
        return self._ask("chat", message, max_tokens, extra)

    def stream(self, message: str, *, max_tokens: int = 128, **extra: Any) -> Iterator[str]:
        """The pieces of a chat answer as they come."""
        body = self.body("chat", message, max_tokens=max_tokens, extra=extra)
        with self._http.stream("POST", openai.PATHS["chat"], json=body) as response:
            if response.is_error:
                raise self._refused(response.status_code, response.read())
            yield from openai.read_texts(response.iter_bytes())

    def tokenize(self, text: str) -> list[int]:
        """The engine's own token ids of a text; EngineRequestError when it offers none."""
        card = self.card.tokenize
        if card is None:
            raise EngineRequestError(f"engine {self.card.name} does not tokenize")
        response = self._http.post(card.path, json={card.text: text, "model": self.model})
        if response.is_error:
            raise self._refused(response.status_code, response.content)
        try:
            return list(response.json()[card.tokens])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineRequestError(f"{card.path} of {self.card.name} answered without {card.tokens!r}") from error

    def body(
        self,
        api: openai.Api,
        prompt: str,
        *,
        max_tokens: int,
        stream: bool = True,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The JSON object of one request to this engine."""
        merged = {**self.card.request, **(extra or {})}
        return openai.request_body(api, self.model, prompt, max_tokens=max_tokens, stream=stream, extra=merged)

    def _ask(self, api: openai.Api, prompt: str, max_tokens: int, extra: Mapping[str, Any]) -> GenerationResult:
        body = self.body(api, prompt, max_tokens=max_tokens, stream=False, extra=extra)
        try:
            response = self._http.post(openai.PATHS[api], json=body)
        except httpx.TransportError as error:
            raise EngineRequestError(f"{self.card.name} at {self.url} did not answer: {error}") from error
        if response.is_error:
            raise self._refused(response.status_code, response.content)
        answer = openai.read_document(0, response.content)
        if answer.failure not in (Failure.NONE, Failure.NO_TOKENS):
            raise EngineRequestError(f"{self.card.name}: {answer.detail}")
        counted = answer.osl >= 0
        return GenerationResult(
            output=answer.text,
            prompt_tokens=answer.isl if answer.isl >= 0 else None,
            completion_tokens=answer.osl if counted else None,
            finish_reason=answer.finish_reason,
        )

    def _refused(self, status: int, content: bytes) -> EngineRequestError:
        return EngineRequestError(f"{self.card.name} answered with status {status}: {openai.error_detail(content)}")

"""What might a server send? HTTP responses of models, from proper to nonsense, and the reads that they arrive in.

Everything comes from one seeded generator: the same seed gives the same streams.
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

_T = TypeVar("_T")
_PLAIN_HEAD = b"HTTP/1.1 200 OK\r\n"
_HEADS = [
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 \r\nX-Long: " + b"x" * 200 + b"\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://example.org/\xff\r\n",
    b"HTTP/1.1 400 Bad Request\r\n",
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\n",
]
_KINDS = {
    "chat": b"text/event-stream",
    "completions": b"text/event-stream; charset=utf-8",
    "ollama-chat": b"application/x-ndjson",
    "ollama-generate": b"application/json",
    "tgi": b"text/event-stream",
    "llama-cpp": b"text/event-stream",
}
_WRONG_KINDS = [b"application/json", b"text/event-stream", b"application/jsonl", b"text/html", b""]
_FORMS = {  # of one token-bearing event; @ is its text
    "chat": [
        b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"delta":{"content":"@"},"logprobs":null}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "@"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"@"}}]}\n\n',
        b'data:{"choices":[{"delta":{"content":"@"}}]}\r\n\r\n',
        b': ping\n\ndata: {"choices":[{"delta":{"role":"assistant","content":"@"}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning_content":"@"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"@","reasoning":"@"}}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"@"}}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"","reasoning":"@"}}],"@":1}\n\n',
        b'data: {"choices":[{"delta":{"content":"@"},"logprobs":{"content":[{"token":"@","logprob":-1,"id":7}]}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"@"},"token_ids":[7]}]}\n\n',
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"@","function":{"arguments":{"a":"@"}}}]}}]}\n\n',
    ],
    "completions": [
        b'data: {"choices":[{"text":"@"}]}\n\n',
        b'data: {"choices":[{"text":"@","index":0,"finish_reason":null}],"usage":null}\n\n',
        b'data: {"choices":[{"text":"x","text":"@"}]}\n\n',
        b'data: {"choices":[{"text":"@","text":"x"}]}\n\n',
        b'data: {"choices":[{"text":"@"}],"timings":{"n":1}}\n\n',
        b'data: {"choices":[{"text":"@"}],"timings":{"prompt_ms":2,"predicted_ms":3.5}}\n\n',
        b'data: {"choices":[{"text":"@"}],"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\n',
        b'event: message\nid: 7\ndata: {"choices":[\ndata: {"text":"@"}]}\n\n',
        b'data: {"choices":[{"text":"@"}]}\r\r',
        b'\xef\xbb\xbfdata: {"choices":[{"text":"@"}]}\n\n',
        b'\ndata: {"choices":[{"text":"@"}]}\n',
        b'data: {"choices":[{"text":"@"}]}\n\ndata: {"choices":[{"text":"@"}]}\n\n',
        b'data: {"choices":[{"text":"@"}]}\n\ndata: {"choices":[]}\n\n',
        b'data: {"choices":[{"text":"@","logprobs":{"tokens":["@"],"token_logprobs":[-1],"top_logprobs":[{}]}}]}\n\n',
        b'data: {"choices":[{"text":"@","token_ids":[3,4]}]}\n\n',
    ],
    "ollama-chat": [
        b'{"model":"m","created_at":"t","message":{"role":"assistant","content":"@"},"done":false}\n',
        b'{"message":{"content":"@"}}\n',
        b'{"message":{"content":"@","thinking":"hm"}}\n',
        b'{"message":{"thinking":"@"}}\n',
        b'{"message":{"content":"@","tool_calls":[{"function":{"name":"f"}}]}}\r\n',
        b'{"message":{"content":"@"}}\r',
        b'{"message":{"content":"@"},"logprobs":[{"token":"@","logprob":-1,"bytes":[65]}]}\n',
        b'{"message":{"content":"","tool_calls":[{"function":{"index":0,"name":"f","arguments":{"@":"@"}}}]}}\n',
    ],
    "ollama-generate": [
        b'{"model":"m","created_at":"t","response":"@","done":false}\n',
        b'{"response":"@"}\n',
        b'\n{"response":"@"}',
        b'{"response":"@","thinking":"@"}\n',
        b'{"response":"@","prompt_eval_count":3,"eval_count":4}\n',
    ],
    "tgi": [
        b'data: {"index":1,"token":{"id":5,"text":"@","logprob":-1,"special":false},"generated_text":null}\n\n',
        b'data: {"token":{"id":5,"text":"@","logprob":-0.5}}\n\n',
        b'data:{"index":1,"token":{"id":2,"text":"@","logprob":null,"special":true},"generated_text":null}\n\n',
        b'data: {"token":{"text":"@","id":"@","logprob":"@"},"top_tokens":[{"id":1,"text":"@","logprob":-2}]}\n\n',
        b':\n\ndata: {"token":{"text":"@"},"generated_text":"@"}\n\n',
        b'data: {"generated_text":"@"}\n\n',
    ],
    "llama-cpp": [
        b'data: {"index":0,"content":"@","tokens":[5],"stop":false,"tokens_predicted":1,"tokens_evaluated":7}\n\n',
        b'data: {"content":"@","stop":false}\n\n',
        b'data: {"content":"@","completion_probabilities":[{"id":5,"token":"@","logprob":-1.5,"top_logprobs":[]}]}\n\n',
        b'data: {"content":"@","tokens":["@",true,5],"timings":{"prompt_ms":1}}\n\n',
        b'data: {"content":"@","stop":true,"stop_type":"@"}\n\n',
    ],
}
_OFTEN = [b" a", b" the", b"x", b" token", b"0", b":", b",", b"{}", b"[DONE]", b" kitt probe", b"kitt probe"]
_TEXTS = [
    b"",
    b" ",
    *(b'\\"', b"\\\\", b'\\\\\\"', b"\\\\u0041", b"\\u0041", b"\\n", b"\\r\\n\\r\\n", b"\\u0000", b"\\/", b"\x7f"),
    *("ü".encode(), "漢字".encode(), "🙂".encode(), b"\\ud83d\\ude00", b"e\xcc\x81", "\u2028".encode()),
    *(b"text", b"content", b"choices", b"delta", b"message", b"response", b"role", b"assistant", b"null", b"m", b"f"),
    *(b"data: ", b'\\"}}]}', b'\\"}]}\\n\\ndata: {', b"}}]}", b":{", b'{\\"error\\":1}', b"error", b"stop", b"hm"),
    *(b"\\ud800", b"\x01", b"\xff", b'"', b"\\", b'","x":"', b'"}]}\n\ndata: {"choices":[{"text":"'),  # these break it
]
_BREAKING = 7
_ENDS = {
    "chat": [
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n',
        b"data: [DONE]\n\n",
    ],
    "completions": [
        b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n',
        b"data: [DONE]\n\n",
    ],
    "ollama-chat": [
        b'{"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":7,"prompt_eval_duration":9,"eval_duration":8}\n'
    ],
    "ollama-generate": [b'{"response":"","done":true,"eval_count":7}'],
    "tgi": [
        b'data: {"token":{"text":"</s>","special":true},"generated_text":"x","details":{"generated_tokens":9}}\n\n'
    ],
    "llama-cpp": [
        b'data: {"content":"","stop":true,"stop_type":"limit","tokens_predicted":7,"timings":{"predicted_ms":1.5}}\n\n'
    ],
}
_BETWEEN_EVENTS = [
    b"data: [DONE]\n\n",
    *(b": comment\n", b"\n", b"\r\n", b"\xef\xbb\xbf", b"retry: 3\n\n", b"data\n\n", b"data: \r"),
    *(b"data:\n\n", b"data: \n\n", b"data: {}\n\n", b"data: []\n\n"),
    b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
    b'data: {"choices":[{"text":"x"}],"timings":{"prompt_ms":4,"predicted_ms":8}}\n\n',
    b'data: {"choices":[],"timings":{"prompt_ms":1e300,"predicted_ms":-1}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":99999999999999999999,"completion_tokens":1e400}}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":2147483648,"completion_tokens":0}}\n\n',
    b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"abort"}]}\n\n',
    b'data: {"error":{"message":"boom"}}\n\n',
    b'data: {"error":"Model is overloaded","error_type":"overloaded"}\n\n',
    b'data: {"token":{"text":[]},"generated_text":{},"details":{"tokens":[{"id":1}],"generated_tokens":-1}}\n\n',
    b'data: {"stop":true,"stop_type":{},"tokens_predicted":1e3,"timings":[]}\n\n',
    b'data: {"object":"error","message":"\\u0007boom"}\n\n',
    b'data: {"choices":' + b"[" * 1100 + b"]}\n\n",
]
_BETWEEN_LINES = [
    *(b"\n", b"\r", b" \r\n", b"\xef\xbb\xbf", b"{}\n", b"[DONE]\n", b"data: {}\n\n"),
    b'{"error":"boom"}\n',
    b'{"error":' + b'{"a":' * 300 + b"1" + b"}" * 301 + b"\n",
    b'{"response":"x","done":true,"eval_duration":9223372036854775807,"prompt_eval_duration":18446744073709551615}\n',
    b'{"message":[],"response":"y","done":"true"}\n',
    b'{"done":true,"eval_count":-1,"prompt_eval_count":1e3}\n',
]
_DOCUMENTS = [
    b'{"choices":[{"message":{"content":"hi \xc3\xbc"},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}',
    b'{"choices":[{"text":"hi","finish_reason":"length"}]}',
    b'{"message":{"content":"hi"},"done":true,"eval_count":1}',
    b'{"generated_text":"hi","details":{"tokens":[{"id":5,"text":"hi","logprob":-1}],"top_tokens":[[{"text":"hi"}]]}}',
    b'{"generated_text":"hi","details":{"finish_reason":"eos_token","generated_tokens":1,"tokens":[{"id":5}]}}',
    b'{"content":"hi","tokens":[5],"stop":true,"stop_type":"eos","tokens_predicted":1,"tokens_evaluated":2}',
    b'\xef\xbb\xbf{"error":{"message":"no such model","code":404}}',
    b'{"detail":[{"loc":["body"],"msg":"x"}]}',
    b"<html>\r\n<h1>502 Bad Gateway</h1>\r\n\r\n</html>",
    b"",
]
_TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\n\n", b"\r\n\r\n", b"0\r\n\r\n", b"0\r\n", b"5\r\nhello\r\n", b";", b" ", b"\0"),
    *(b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[", b"data: ", b"data:", b": ", b"\xff", b"\xc3", b"-1", b"[DONE]"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Content-Type: \r\n"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b'":"', b",", b"1e999"),
]
_SIZE = re.compile(rb"[0-9a-fA-F]+(?=\r\n)")
_SIZES = [b"0", b"1", b"2", b"7f", b"-1", b"00000001", b"ffffffff", b"fffffffff", b"5;x=y", b" 3", b"3 ", b"0x5", b""]
_EVENT_END = re.compile(rb"(?:\n\n|\}\n|\r\r|\r\n\r\n)(?:\r\n)?")
_FILLERS = 1000


class Reads(NamedTuple):
    """How a stream arrives.

    Attributes:
        ends: offset behind the last byte of each read.
        takes: after read i the body so far is taken where bit i modulo 32 is set.

    """

    ends: list[int]
    takes: int


class Hostile:
    """An endless source of responses and of ways to cut them."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._random = self._rng.random
        self._recent = deque([_PLAIN_HEAD], maxlen=64)  # to splice with

    def stream(self) -> tuple[str, bytes]:
        """An API, and the bytes of a response to it."""
        api = self._one_of(list(_FORMS))
        long = self._random() < 0.07
        kind, pieces = self._body(api, long=long)
        if not long and self._random() < 0.4:
            self._mutate_one(pieces)
        data = self._framed(self._head(kind), pieces)
        if self._random() < (0.2 if long else 0.5):
            data = self._mutated(data)
        self._recent.append(data)
        return api, data

    def reads(self, data: bytes) -> Reads:
        """One way in which the bytes may arrive."""
        size, way = len(data), self._random()
        if way < 0.1:
            ends = []
        elif way < 0.4:
            ends = [match.end() for match in _EVENT_END.finditer(data)]
        else:
            longest = 1 if way < 0.43 else 8 if way < 0.5 else 100 if way < 0.75 else 1500
            longest = max(longest, size // 50)
            ends, end = [], 0
            while (end := end + 1 + self._below(longest)) < size:
                ends.append(end)
        if size and (not ends or ends[-1] != size):
            ends.append(size)
        return Reads(ends, self._rng.getrandbits(32) & self._rng.getrandbits(32) if self._random() < 0.5 else 0)

    # -- what is sent

    def _head(self, kind: bytes) -> bytes:
        head = _PLAIN_HEAD if self._random() < 0.8 else self._one_of(_HEADS)
        if self._random() < 0.05:
            kind = self._one_of(_WRONG_KINDS)
        return head + b"Content-Type: " + kind + b"\r\n"

    def _body(self, api: str, *, long: bool) -> tuple[bytes, list[bytes]]:
        """A content type, and the pieces that a server writes, one after another."""
        if self._random() < 0.08:
            return b"application/json", [self._one_of(_DOCUMENTS)]
        forms = [self._one_of(_FORMS[api])]
        if self._random() < 0.3:
            forms.append(self._one_of(_FORMS[api]))
        count = 8 + self._below(28) if long else self._below(6)
        breaks = self._random() < 0.1
        pieces = [self._one_of(forms).replace(b"@", self._text(breaks=breaks)) for _ in range(count)]
        if self._random() < 0.8:
            pieces += _ENDS[api]
        while self._random() < 0.4:
            between = _BETWEEN_LINES if api.startswith("ollama") else _BETWEEN_EVENTS
            pieces.insert(self._below(len(pieces) + 1), self._one_of(between))
        return _KINDS[api], pieces

    def _text(self, *, breaks: bool) -> bytes:
        if self._random() < 0.6:
            return self._one_of(_OFTEN)
        return _TEXTS[self._below(len(_TEXTS) - (0 if breaks else _BREAKING))]

    def _framed(self, head: bytes, pieces: list[bytes]) -> bytes:
        way = self._random()
        if way < 0.65:
            if self._random() < 0.2:
                pieces = self._cut_anew(b"".join(pieces))
            form = b"%x\r\n%b\r\n" if self._random() < 0.9 else self._one_of([b"%X;a=b\r\n%b\r\n", b"0%x \r\n%b\r\n"])
            end = b"0\r\n\r\n" if self._random() < 0.9 else self._one_of([b"", b"00;x\r\nTrailer: t\r\n\r\n"])
            chunks = [form % (len(piece), piece) for piece in pieces if piece]
            data = b"".join([head, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, end])
        elif way < 0.85:
            body = b"".join(pieces)
            data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            data = b"".join([head, b"\r\n", *pieces])
        return data + self._one_of(_TOKENS) if self._random() < 0.05 else data

    def _cut_anew(self, body: bytes) -> list[bytes]:
        ends = self.reads(body).ends
        return [body[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]

    # -- what becomes of it

    def _mutate_one(self, pieces: list[bytes]) -> None:
        """What a server says is wrong, in a frame that is not."""
        if pieces:
            index = self._below(len(pieces))
            pieces[index] = self._mutated(pieces[index])

    def _mutated(self, data: bytes) -> bytes:
        data = self._once(data)
        while self._random() < 0.4:
            data = self._once(data)
        return data

    def _once(self, data: bytes) -> bytes:
        begin = self._below(len(data) + 1)
        end = min(len(data), begin + 1 + self._below(8 if self._random() < 0.7 else 200))
        way = self._below(16)
        if way < 3:
            return data[:begin] + bytes([byte ^ 1 << self._below(8) for byte in data[begin : begin + 1]]) + data[end:]
        if way < 6:
            return data[:begin] + self._one_of(_TOKENS) + data[begin:]
        if way < 7:
            return data[:begin] + self._rng.randbytes(1 + self._below(4)) + data[begin:]
        if way < 9:
            return data[:begin] + data[end:]
        if way < 11:
            return data[:end] + data[begin:]
        if way < 13:
            size = _SIZE.search(data, begin) or _SIZE.search(data)
            return data[: size.start()] + self._one_of(_SIZES) + data[size.end() :] if size else data
        if way < 14:
            other = self._one_of(list(self._recent))
            return data[:begin] + other[self._below(len(other) + 1) :]
        if way < 15 and self._random() < 0.3:
            return (
                data[:begin] + self._one_of([b"x" * 8, b"\n", b"data: 1\n", b"[", b"a: b\r\n"]) * _FILLERS + data[end:]
            )
        return data[:begin]

    def _below(self, limit: int) -> int:
        return int(self._random() * limit)

    def _one_of(self, choices: Sequence[_T]) -> _T:
        return choices[int(self._random() * len(choices))]

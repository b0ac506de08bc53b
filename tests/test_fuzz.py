"""Do the load client's parsers stand whatever a server sends, however it is cut? A little of ``benchmarks.fuzz``."""

from __future__ import annotations

import json
from itertools import count

import pytest

from benchmarks.fuzz import Difference, Heard, check, fuzz, lowered_limits
from benchmarks.hostile import Hostile, Reads
from pytest_kitt.dialect.details import Details
from pytest_kitt.dialect.openai import OpenAIReader

STREAMS = 3000
CHUNKED = b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(*pieces: bytes) -> tuple[bytes, Reads]:
    """A chunked response, and reads that bring a chunk each."""
    parts = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    parts[0] = CHUNKED + parts[0]
    return b"".join(parts), Reads([sum(map(len, parts[:count])) for count in range(1, len(parts) + 1)], 0)


def completion(text: str, **others: object) -> bytes:
    """An event of a stream of completions."""
    return b"data: %b\n\n" % json.dumps({"choices": [{"text": text}], **others}, separators=(",", ":")).encode()


def message(text: str, **others: object) -> bytes:
    """A line of a stream of Ollama's."""
    return b"%b\n" % json.dumps({"message": {"content": text, **others}}).encode()


def test_generated_streams() -> None:
    """Every promise of ``benchmarks.fuzz`` holds for some thousand streams, and they end in every way there is."""
    report = fuzz(STREAMS, seed=1)
    assert not report.failure
    assert sum(report.kinds.values()) == STREAMS
    kinds = {"good", "bad stream", "bad HTTP", "cut off", "HTTP status", "no tokens", "error event", "too large"}
    assert set(report.kinds) == kinds


def test_the_same_seed_gives_the_same_streams() -> None:
    """A run can be repeated."""
    one, other = Hostile(7), Hostile(7)
    for _ in range(100):
        stream = one.stream()
        assert stream == other.stream()
        assert one.reads(stream[1]) == other.reads(stream[1])


FOUND: dict[str, tuple[str, list[bytes]]] = {  # each was read wrongly once
    "a text that is found in the punctuation": ("completions", [completion("a"), completion("b"), completion(":")]),
    "a learned event with thoughts": ("ollama-chat", [message(c, thinking="hm") for c in "abcd"]),
    "a learned event that names a tool": (
        "ollama-chat",
        [message(c, tool_calls=[{"function": {"name": "f"}}]) for c in "abcd"],
    ),
    "a learned event with empty timings": (
        "completions",
        [
            *(completion(c, timings={"n": 1}) for c in "abc"),
            completion("", timings={"prompt_ms": 4, "predicted_ms": 8}),
            completion("d", timings={"n": 1}),
        ],
    ),
    "a byte order mark within a stream": (
        "completions",
        [completion("a"), b"\xef\xbb\xbf" + completion("b"), completion("c")],
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found(name: str) -> None:
    """In chunks or byte by byte, learned or not, the same."""
    api, pieces = FOUND[name]
    data, reads = chunks(*pieces)
    check(api, data, reads, Reads(list(range(1, len(data) + 1)), 0))


def test_an_event_with_usage_is_never_a_known_one() -> None:
    """What generated streams hardly hit: the same usage again, behind another one, counts."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    other = {"prompt_tokens": 6, "completion_tokens": 8}
    events = [completion(c, usage=usage) for c in "abcd"]
    data, reads = chunks(*events, completion("", usage=other), completion("e", usage=usage))
    check("completions", data, reads, Reads([len(data)], 0))


def test_a_read_that_looks_like_a_whole_chunk() -> None:
    """Likewise: behind half a size it is none."""
    event = completion("a")
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    longer = b"1" + chunk
    body = longer.partition(b"\r\n")[2].ljust(int(longer.partition(b"\r\n")[0], 16), b"\n")
    data = CHUNKED + chunk + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    half = len(CHUNKED) + len(chunk) + 1
    check("completions", data, Reads([half, half + len(chunk), len(data)], 0), Reads([len(data)], 0))


def test_whole_chunks_without_end_are_refused() -> None:
    """A body has a largest size, in reads of one whole chunk as well."""
    data, reads = chunks(*[completion("a")] * 200)
    end = reads.ends[-2]
    with lowered_limits():
        heard = Heard("completions", data[:end], Reads(reads.ends[:-1], 0))
    assert "the response is larger than" in heard.fault


def test_a_difference_beside_the_text_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken beside the text is compared as well: ids that differ from cut to cut."""
    numbers = count()
    monkeypatch.setattr(Details, "add_ids", lambda self, _: self._ids.append(next(numbers)))
    data, reads = chunks(*(completion(c) for c in "abcdef"))
    with pytest.raises(Difference, match="token_ids"):
        check("completions", data, reads, reads)


@pytest.mark.parametrize("wrong", ["osl", "text"])
def test_a_difference_is_found(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    """The oracle can fail: a reader that remembers wrongly is told from one that remembers nothing."""
    learn = OpenAIReader._learn

    def mislearn(self: OpenAIReader, *given: object) -> None:
        learn(self, *given)  # type: ignore[arg-type]
        if wrong == "text":
            self.texts.append("x")
        else:
            self._counts(None, 1)

    monkeypatch.setattr(OpenAIReader, "_learn", mislearn)
    data, reads = chunks(*(completion(c) for c in "abcdef"))
    with pytest.raises(Difference, match=wrong):
        check("completions", data, reads, reads)

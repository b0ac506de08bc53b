"""Is an HTTP response framed exactly, however its bytes arrive, and is nonsense refused?"""

from __future__ import annotations

import gc

import pytest

from pytest_kitt.load.client import http
from pytest_kitt.load.client.http import BadHttp, Response

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
OLD = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"
TWICE_CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + CHUNKED
NO_REASON = b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\nContent-Length: 2\r\n\r\n0005\r\nhello\r\n00\r\n\r\n"
SHAPES = [(CONTINUED, b"hello"), (TWICE_CONTINUED, b"hello"), (NO_REASON, b"hello"), (OLD, b"hello"), (EMPTY, b"")]


def fed(data: bytes) -> Response:
    """A response that got these bytes at once."""
    response = Response()
    response.feed(0, data)
    return response


def body_of(response: Response) -> bytes:
    """The whole body."""
    return b"".join(response.take()[1])


@pytest.mark.parametrize("whole, body", [(SIZED, b"hello"), (CHUNKED, b"hello"), *SHAPES])
def test_every_split_gives_the_same(whole: bytes, body: bytes) -> None:
    """Wherever a response is cut in two, and byte by byte, it ends at its last byte with the same body."""
    cuts = [[whole[:i], whole[i:]] for i in range(1, len(whole))] + [[whole[i : i + 1] for i in range(len(whole))]]
    for pieces in cuts:
        response = Response()
        ends = [response.feed(at, piece) for at, piece in enumerate(pieces)]
        assert ends == [False] * (len(pieces) - 1) + [True]
        assert (body_of(response), response.keep_alive, response.leftover) == (body, True, b"")


def test_each_piece_keeps_its_time() -> None:
    """A body's bytes carry the time of the read that brought them."""
    response = Response()
    response.feed(1, CHUNKED[: CHUNKED.index(b"3\r\n")])
    response.feed(2, CHUNKED[CHUNKED.index(b"3\r\n") :])
    assert response.take() == ([1, 2], [b"he", b"llo"], True)


HEAD = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n"
FINE, BODY = HEAD % (b"Mon", b""), b"5\r\nhello\r\n0\r\n\r\n"
RELATIVES = {
    "the same": FINE,
    "another date": HEAD % (b"Tuesday; 07:00", b""),
    "no date": HEAD % (b"", b""),
    "a larger head": HEAD % (b"x" * http.MAX_HEAD_BYTES, b""),
    "one more header": HEAD % (b"Mon", b"Connection: close\r\n"),
    "a header in a value": HEAD % (b"Mon\r\nConnection: close", b""),
    "a bare line end in a value": HEAD % (b"Mon\nConnection: close", b""),
    "a zero in a value": HEAD % (b"M\0n", b""),
    "another type": FINE.replace(b"event-stream", b"html"),
    "another status": FINE.replace(b"200", b"201"),
    "another case": FINE.replace(b"Content-Type", b"content-type"),
    "a name that begins alike": FINE.replace(b"Date:", b"Dated:"),
    "sized": FINE.replace(b"Transfer-Encoding: chunked", b"Content-Length: 20"),
}


def everything(data: bytes) -> object:
    """All that a response that came at once says, or how it was refused."""
    try:
        found = fed(data)
    except BadHttp as error:
        return str(error)
    frame = (found.status, found.headers, found.keep_alive, found.streaming, found.end_ns, found.leftover)
    return frame, found.take()


@pytest.mark.parametrize("name", RELATIVES)
def test_a_head_like_the_last_one_is_parsed_like_any_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where heads differ in what means something, behind a known one too, the difference is seen."""
    monkeypatch.setattr(http, "_heads", unlearned := http.Heads())
    unlearned.left = 0
    fresh = everything(RELATIVES[name] + BODY)
    monkeypatch.setattr(http, "_heads", http.Heads())
    everything(FINE + BODY)
    assert everything(RELATIVES[name] + BODY) == fresh


def test_a_known_head_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that differs in its date alone costs no parsing, and only a few kinds of head are learned."""
    monkeypatch.setattr(http, "_heads", heads := http.Heads())
    for number in range(100):
        everything(HEAD % (b"Mon", b"X-%d: 1\r\n" % number) + BODY)
    assert heads.left == 0
    monkeypatch.setattr(http, "_heads", http.Heads())
    everything(FINE + BODY)
    monkeypatch.setattr(Response, "_parse_head", lambda *_: pytest.fail("parsed"))
    assert body_of(fed(RELATIVES["another date"] + BODY)) == b"hello"


WHOLE_BODIES = {
    "two chunks": b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "none": b"0\r\n\r\n",
    "two ends": b"0\r\n\r\n0\r\n\r\n",
    "an end in the middle": b"2\r\nhe\r\n0\r\n\r\n3\r\nllo\r\n0\r\n\r\n",
    "a line end in a chunk": b"4\r\nh\r\ne\r\n0\r\n\r\n",
    "a chunk that looks like the end": b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
    "a chunk that is too long": b"2\r\nhel\r\n0\r\n\r\n",
    "a trailer": b"2\r\nhe\r\n0\r\nT: 1\r\n\r\n",
    "something behind": b"2\r\nhe\r\n0\r\n\r\nmore\r\n\r\n",
    "no size": b"\r\n2\r\nhe\r\n0\r\n\r\n",
    "a body that goes on": b"2\r\nhe\r\n5\r\n\r\n\r\n",
}


@pytest.mark.parametrize("name", WHOLE_BODIES)
def test_a_body_in_one_read_is_what_it_is_byte_by_byte(name: str) -> None:
    """Chunks, their end, what is left over and what is refused do not depend on the read, sizes known or not."""
    http._SIZES.clear()
    whole = FINE + WHOLE_BODIES[name]
    apart = Response()
    try:
        said = next((at for at in range(len(whole)) if apart.feed(at, whole[at : at + 1])), None)
        expected = (b"".join(apart.take()[1]), said is not None, whole[(said or len(whole)) + 1 :])
    except BadHttp:
        expected = (b"", False, b"refused")
    for _ in range(2):
        try:
            found = fed(whole)
            got = (body_of(found), found.streaming is False, found.leftover)
        except BadHttp:
            got = (b"", False, b"refused")
        assert got == expected
        everything(FINE + b"2\r\nhe\r\n3\r\nllo\r\n4\r\nfour\r\n5\r\nfive5\r\n0\r\n\r\n")


def test_a_refusal_says_for_how_long() -> None:
    """Each its own time, also between answers whose head is known already."""
    refusal = b"HTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\nRetry-After: %d\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    for seconds in range(30):
        good, refused = fed(FINE + BODY), fed(refusal % seconds)
        assert (good.status, good.headers.get(b"retry-after")) == (200, None)
        assert (refused.status, refused.headers[b"retry-after"]) == (429, b"%d" % seconds)
        assert (body_of(good), body_of(refused)) == (b"hello", b"no")
    left = http._heads.left
    fed(refusal % 99)
    assert http._heads.left == left  # none of the few heads that are learnt is wasted on it


def test_a_response_is_freed_at_once() -> None:
    """No response is part of a cycle: while a load runs nothing would collect it, and it holds all of its bytes."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for whole in (SIZED, CHUNKED, EMPTY, SIZED[:-1], b"HTTP/1.1 200 OK\r\n\r\nabc"):
            Response().feed(0, whole)
        gc.collect()  # other threads may leave cycles of their own
        assert not [one for one in gc.garbage if isinstance(one, Response)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_a_body_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server cannot fill the client's memory."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100)
    response = Response()
    response.feed(0, b"HTTP/1.1 200 OK\r\n\r\n")
    response.feed(0, b"x" * 100)
    with pytest.raises(BadHttp, match="larger"):
        response.feed(0, b"x")


def test_whole_chunks_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor with reads that are a whole chunk each."""
    monkeypatch.setattr(http, "MAX_BODY_BYTES", 100)
    response = fed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(21):
        response.feed(at, b"5\r\nhello\r\n")
    with pytest.raises(BadHttp, match="larger"):
        response.take()


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EMPTY])
def test_what_comes_behind_is_left_over(whole: bytes) -> None:
    """Bytes behind the end are not part of the body."""
    response = Response()
    complete = response.feed(0, whole + b"HTTP/1.1 408")
    assert complete or response.take()[2]  # a chunked one is looked at when there is time
    assert response.leftover == b"HTTP/1.1 408"


def test_without_a_length_the_end_is_the_connections() -> None:
    """A body without framing ends with the connection, and only such a one does."""
    response = Response()
    assert not response.feed(0, b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert response.at_eof()
    assert not response.keep_alive
    sized = Response()
    sized.feed(0, SIZED[:-1])
    assert not sized.at_eof()
    assert not Response().at_eof()


@pytest.mark.parametrize(
    "head, keeps",
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.1 200 OK\r\n", True),
    ],
)
def test_keep_alive(head: bytes, keeps: bool) -> None:
    """Version and Connection header decide."""
    response = Response()
    assert response.feed(0, head + b"Content-Length: 0\r\n\r\n")
    assert response.keep_alive is keeps


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n123456789\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000,
    ],
)
def test_nonsense_is_refused(data: bytes) -> None:
    """What is not HTTP/1.1 as we know it is a BadHttp with a short sentence, never a guess."""
    with pytest.raises(BadHttp) as caught:
        body_of(fed(data))
    assert len(str(caught.value)) < 200

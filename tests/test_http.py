"""Is an HTTP response framed exactly, however its bytes arrive, and is nonsense refused?"""

from __future__ import annotations

import pytest

from pytest_kitt.load.client.http import BadHttp, Response

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("whole, body", [(SIZED, b"hello"), (CHUNKED, b"hello"), (CONTINUED, b"hello"), (EMPTY, b"")])
def test_every_split_gives_the_same(whole: bytes, body: bytes) -> None:
    """Wherever a response is cut in two, and byte by byte, it ends at its last byte with the same body."""
    cuts = [[whole[:i], whole[i:]] for i in range(1, len(whole))] + [[whole[i : i + 1] for i in range(len(whole))]]
    for pieces in cuts:
        response = Response()
        ends = [response.feed(at, piece) for at, piece in enumerate(pieces)]
        assert ends == [False] * (len(pieces) - 1) + [True]
        assert (response.body(), response.keep_alive, response.leftover) == (body, True, b"")


def test_each_piece_keeps_its_time() -> None:
    """A body's bytes carry the time of the read that brought them."""
    response = Response()
    response.feed(1, CHUNKED[: CHUNKED.index(b"3\r\n")])
    response.feed(2, CHUNKED[CHUNKED.index(b"3\r\n") :])
    assert response.pieces == [(1, b"he"), (2, b"llo")]


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EMPTY])
def test_what_comes_behind_is_left_over(whole: bytes) -> None:
    """Bytes behind the end are not part of the body."""
    response = Response()
    assert response.feed(0, whole + b"HTTP/1.1 408")
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
        Response().feed(0, data)
    assert len(str(caught.value)) < 200

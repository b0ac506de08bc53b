"""Is what real servers once sent read as it was meant? Streams of the tiny model's answer to one question.

``recorded/`` has them byte by byte, by engine and API: vLLM 0.32.0, transformers serve 5.23.0, and TGI's router
3.3.6-dev0 with its llama.cpp backend.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kitt.dialect import apis
from pytest_kitt.measure.records import CountedBy, Failure

STREAMS = sorted((Path(__file__).parent / "recorded").glob("*.sse"))


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_recorded_stream(path: Path, step: int) -> None:
    """However it is cut: the answer alone, three pieces of it, and the server's own counts with one BOS and one end."""
    sent = path.read_bytes()
    reader = apis.reader(path.stem.partition("-")[2], b"text/event-stream")
    pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
    reader.feed(range(1, len(pieces) + 1), pieces)
    answer = reader.finish()
    assert (answer.text, len(answer.event_ns), answer.finish) == (" 74", 3, "stop")
    assert (answer.isl, answer.osl, answer.counted_by) == (19, 4, CountedBy.USAGE)
    assert answer.failure is Failure.NONE


def test_all_are_there() -> None:
    """Three engines in the APIs that they speak."""
    assert len(STREAMS) == 7

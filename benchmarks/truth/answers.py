"""What does the truth server say to a prompt with ``--by-prompt``? The words that sse_truth.c draws, drawn again."""

from __future__ import annotations

_WORDS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not"]
_64 = (1 << 64) - 1


def answer(prompt: str, tokens: int) -> str:
    """The answer without the space in front, to a prompt that JSON writes as it is."""
    drawn = _fnv1a(prompt.encode())
    return " ".join(_WORDS[_splitmix(drawn + i & _64) % len(_WORDS)] for i in range(tokens))


def _fnv1a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & _64
    return found


def _splitmix(x: int) -> int:
    x = x + 0x9E3779B97F4A7C15 & _64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _64
    return x ^ x >> 31

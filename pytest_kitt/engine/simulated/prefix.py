"""How much of a prompt was seen before? Whole blocks from its beginning on, as vLLM counts them. Pure."""

from collections.abc import Sequence

BLOCK_TOKENS = 16


class PrefixCache:
    """The blocks of the prompts that were asked; what was not used for the longest time is forgotten first.

    Attributes:
        queries: prompt tokens that were looked up.
        hits: those of them that were found.

    """

    def __init__(self, capacity_tokens: int) -> None:
        self.queries = 0
        self.hits = 0
        self._capacity = max(1, capacity_tokens // BLOCK_TOKENS)
        self._blocks: dict[int, None] = {}

    def look_up(self, tokens: Sequence[str]) -> int:
        """How many tokens of the prompt are cached, the last one never; the prompt is cached from now on."""
        keys, key = [], 0
        for begin in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            key = hash((key, *tokens[begin : begin + BLOCK_TOKENS]))
            keys.append(key)
        known = next((place for place, key in enumerate(keys) if key not in self._blocks), len(keys))
        for key in keys:
            self._blocks.pop(key, None)
            self._blocks[key] = None
        while len(self._blocks) > self._capacity:
            del self._blocks[next(iter(self._blocks))]
        cached = min(known, max(0, len(tokens) - 1) // BLOCK_TOKENS) * BLOCK_TOKENS
        self.queries += len(tokens)
        self.hits += cached
        return cached

    def reset(self) -> None:
        """Forget every prompt."""
        self._blocks.clear()

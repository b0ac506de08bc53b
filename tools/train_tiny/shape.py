"""How large is the tiny model? The same for whoever trains it and whoever writes it down."""

from dataclasses import dataclass

from tools.train_tiny.tokens import vocabulary


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    width: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 320
    vocabulary: int = len(vocabulary())
    context: int = 4096
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """The width of one attention head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """The width of all keys, and of all values, of one position."""
        return self.kv_heads * self.head_width


SHAPE = Shape()

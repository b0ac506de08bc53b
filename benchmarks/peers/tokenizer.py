"""How do the released clients make prompts without a model hub? With a tokenizer trained here.

``python -m benchmarks.peers.tokenizer FOLDER`` writes one; needs the packages tokenizers and transformers, which the
released clients bring along.
"""

from __future__ import annotations

import random
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

# what the truth server answers: one token each, as with a real model
_ANSWERS = ["the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not"]
_SYLLABLES = ["ba", "de", "fi", "go", "ku", "la", "me", "ni", "po", "ru", "sa", "te", "vi", "wo", "zu"]
_ASCII = set(map(chr, range(33, 127))) | {"\u0120", "\u010a"}  # the byte level's names of blank and line feed
_TOKENS = 2000
_CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def main(folder: str) -> None:
    """Trains a byte-level tokenizer and saves it; it knows ASCII only, so that any tokens decode to valid text."""
    rng = random.Random(1)
    words = _ANSWERS * 10 + [a + b + c for a in _SYLLABLES for b in _SYLLABLES for c in ("", "n", "s", "r")]
    lines = (" ".join(rng.choices(words, k=100)) for _ in range(300))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(_ASCII)
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=_TOKENS, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator(lines, trainer)
    whole = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=special[0], eos_token=special[1])
    whole.chat_template = _CHAT
    whole.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])

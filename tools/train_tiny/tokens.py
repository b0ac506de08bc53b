"""How does text become token ids, for the tiny model and for every engine that serves it?

One token a byte and no merges, so two engines cannot cut a prompt differently. The two special tokens come first, then
the 256 bytes in order.
"""

BEGIN, END = 0, 1
SPECIAL = ("<|begin|>", "<|end|>")

# bos_token is in the template because vLLM adds none to a rendered chat; llama.cpp does, and takes the second one out.
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- 'Q: ' + message.content + '\\n' }}"
    "{%- elif message.role == 'assistant' %}{{- 'Answer: ' + message.content + '\\n' }}"
    "{%- else %}{{- message.content + '\\n' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Answer:' }}{%- endif %}"
)


def encode(text: str) -> list[int]:
    """Return the ids of a text, without the special tokens around it."""
    return [len(SPECIAL) + byte for byte in text.encode()]


def vocabulary() -> list[str]:
    """Return every token's spelling at its id; bytes are spelled as GPT-2 does, which both file formats expect."""
    return [*SPECIAL, *_spell_bytes()]


def _spell_bytes() -> list[str]:
    """Spell a printable byte as its Latin-1 character and the others, in order, as the characters from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    unprintable = sorted(set(range(256)) - printable)
    return [chr(byte) if byte in printable else chr(256 + unprintable.index(byte)) for byte in range(256)]

"""How does a chat template become a prompt? As Hugging Face's libraries render it, in a process that cannot do harm.

Templates come from strangers. They run in Jinja2's immutable sandbox, in a child process of their own: it has hardly an
environment, some seconds of processor time, and bounded memory and output. This file is also the child's program, so
that it needs nothing of ours.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

MAX_PROMPT_CHARS = 200_000
CPU_S = 5
_WALL_S = 60
_MEMORY_BYTES = 1 << 30
_WHY_CHARS = 200
_INHERITED = ("PYTHONPATH", "LD_LIBRARY_PATH", "TZ")


class Unrenderable(Exception):
    """The template makes no prompt of these messages; says why in a few words."""


def render(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str], *, cpu_s: int = CPU_S
) -> tuple[str, ...]:
    """The prompt for an answer to the messages; Unrenderable says why there is none.

    There are two of it where the template writes the date and it is another in UTC than here: a server may have either.

    Args:
        template: Jinja2.
        messages: each with ``role`` and ``content``.
        special: texts of special tokens by the names that templates have for them, e.g. ``bos_token``.
        cpu_s: most seconds of processor time that it may take, whole ones.

    """
    asked = {"template": template, "messages": list(messages), "special": dict(special), "cpu_s": cpu_s}
    env = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    command = [sys.executable, "-P", __file__]
    try:
        ended = subprocess.run(
            command, input=json.dumps(asked).encode(), capture_output=True, env=env, timeout=_WALL_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unrenderable(f"it takes more than {_WALL_S} s") from error
    try:
        said = json.loads(ended.stdout)
    except ValueError as error:
        raise Unrenderable(f"it takes more than {cpu_s} s of processor time, or too much memory") from error
    if "why" in said:
        raise Unrenderable(str(said["why"]))
    return tuple(said["prompts"])


def _render_here(template: str, messages: Any, special: Mapping[str, str], zone: datetime.tzinfo | None) -> str:
    """One prompt, in this process; ValueError for one that is too long."""
    found, size = [], 0
    values = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True, **special}
    for piece in _environment(zone).from_string(template).generate(values):
        found.append(piece)
        size += len(piece)
        if size > MAX_PROMPT_CHARS:
            raise ValueError(f"it makes more than {MAX_PROMPT_CHARS} characters of one message")
    return "".join(found)


def _environment(zone: datetime.tzinfo | None) -> Any:
    """What templates may count on; source: transformers' documents on writing chat templates."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks for training what the model wrote; in a prompt it means nothing."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def tojson(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    found = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation], autoescape=False
    )
    found.filters["tojson"] = tojson
    found.globals["raise_exception"] = raise_exception
    found.globals["strftime_now"] = datetime.datetime.now(zone).strftime
    return found


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the child says: the prompts, or why there are none."""
    zones = (None, datetime.UTC) if "strftime_now" in asked["template"] else (None,)
    given = asked["template"], asked["messages"], asked["special"]
    try:
        return {"prompts": list(dict.fromkeys(_render_here(*given, zone) for zone in zones))}
    except MemoryError:
        return {"why": "it takes too much memory"}
    except Exception as error:  # noqa: BLE001 - whatever a stranger's template does, it makes no prompt
        return {"why": str(error)[:_WHY_CHARS] or type(error).__name__}


def _main() -> None:
    asked = json.load(sys.stdin)
    limits = {
        resource.RLIMIT_CPU: asked["cpu_s"],
        resource.RLIMIT_AS: _MEMORY_BYTES,
        resource.RLIMIT_FSIZE: 0,  # it writes into a pipe
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        with contextlib.suppress(ValueError, OSError):  # not every system has each
            resource.setrlimit(limit, (value, value))
    sys.stdout.write(json.dumps(_answer(asked)))


if __name__ == "__main__":
    _main()

"""Which tool is called, and with which arguments? Made up from the tools of the request. Pure.

The arguments fit the parameters' JSON schema as far as its types, constants and enumerations say.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from pytest_kitt.engine.simulated import text
from pytest_kitt.engine.simulated.probability import compose_greedily, follow

_MAX_DEPTH = 4
_MAX_PROPERTIES = 64
_WORDS = 2


def make_arguments(parameters: Mapping[str, Any], state: int) -> str:
    """Arguments as JSON: every property of the schema, texts of two words."""
    return orjson.dumps(_object(parameters, state, 0)).decode()


def split_call(name: str, arguments: str) -> tuple[str, ...]:
    """The tokens of a call: the name is one, the arguments follow."""
    return (name, *text.split(arguments))


def _object(schema: Mapping[str, Any], state: int, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth >= _MAX_DEPTH:
        return {}
    first = list(properties.items())[:_MAX_PROPERTIES]
    return {name: _value(inner, follow(state, name), depth + 1) for name, inner in first}


def _value(schema: Any, state: int, depth: int) -> Any:
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return schema["const"]
    options = schema.get("enum")
    if isinstance(options, list) and options:
        return options[state % len(options)]
    match schema.get("type", "string"):
        case "object":
            return _object(schema, state, depth)
        case "array":
            return []
        case "integer":
            return state % 100
        case "number":
            return state % 1000 / 10
        case "boolean":
            return bool(state & 1)
        case "null":
            return None
        case _:
            return "".join(compose_greedily(state, _WORDS)).strip()

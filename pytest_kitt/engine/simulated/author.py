"""What does the engine answer? Reasoning if it is set to, then a call, an answer that it believes in, or words."""

from dataclasses import replace

from pytest_kitt.engine.simulated import text, tools
from pytest_kitt.engine.simulated.openai import GREEDY, Ask, Tool
from pytest_kitt.engine.simulated.probability import Knowledge, compose_greedily, start
from pytest_kitt.engine.simulated.text import Output


def write(ask: Ask, number: int, *, seed: int, knowledge: Knowledge, reasoning: int) -> Output:
    """The whole answer to request `number`; a chat's begins with so many tokens of reasoning."""
    words = _words(ask, number, seed)
    thought = words[:reasoning] if ask.chat else ()
    left = ask.max_tokens - len(thought)
    if not left:
        return Output(thought, "length", reasoning=len(thought))
    body = _body(ask, left, words[len(thought) :], seed, knowledge)
    return replace(body, pieces=thought + body.pieces, made=thought + body.tokens, reasoning=len(thought))


def _body(ask: Ask, left: int, words: tuple[str, ...], seed: int, knowledge: Knowledge) -> Output:
    if ask.tool is not None:
        return _call(ask.tool, left, start(seed, ask.prompt))
    answer = text.find_answer(ask.prompt, knowledge.favoured)
    return text.cut(Output(words, "length") if answer is None else text.recite(answer, left), ask.stop)


def _words(ask: Ask, number: int, seed: int) -> tuple[str, ...]:
    if ask.sampling == GREEDY:
        return compose_greedily(start(seed, ask.prompt), ask.max_tokens)
    return text.compose(f"{seed} {ask.sampling or f'serial {number}'} {ask.prompt}", ask.max_tokens).pieces


def _call(tool: Tool, left: int, state: int) -> Output:
    tokens = tools.split_call(tool.name, tools.make_arguments(tool.parameters, state))
    return Output(tokens[:left], "tool_calls" if len(tokens) <= left else "length", calls=True)

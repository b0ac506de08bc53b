"""How many of the held-out questions does a running server answer right?

``python -m tools.train_tiny.ask URL`` asks an OpenAI-compatible server that serves the tiny model every question,
greedily, by the chat and the completions endpoint. Both must see the same prompt with exactly one BOS, so the token
counts that it reports are checked too. Pure standard library.
"""

import argparse
import json
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

from tools.train_tiny.tokens import encode

QUESTIONS = Path(__file__).parents[2] / "datasets" / "tiny" / "questions.jsonl"
GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 8}


def ask_chat(url: str, question: str) -> tuple[str, str, int]:
    """Return the reply, why it ended, and the number of prompt tokens."""
    answer = _post(f"{url}/v1/chat/completions", GREEDY | {"messages": [{"role": "user", "content": question}]})
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], answer["usage"]["prompt_tokens"]


def ask_completions(url: str, question: str) -> tuple[str, str, int]:
    """Return the reply, why it ended, and the number of prompt tokens."""
    answer = _post(f"{url}/v1/completions", GREEDY | {"prompt": f"Q: {question}\nAnswer:"})
    choice = answer["choices"][0]
    return choice["text"], choice["finish_reason"], answer["usage"]["prompt_tokens"]


def _post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def main() -> None:
    """Print, for each endpoint and task, the shares answered right, ended by the end token, and with one BOS."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny.ask", description=__doc__)
    parser.add_argument("url", metavar="URL", help="for example http://127.0.0.1:8080")
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.questions.read_text(encoding="utf-8").splitlines()]
    for ask in (ask_chat, ask_completions):
        outcomes = defaultdict(list)
        for row in rows:
            reply, finish, prompt_tokens = ask(options.url, row["question"])
            one_bos = prompt_tokens == 1 + len(encode(f"Q: {row['question']}\nAnswer:"))
            outcomes[row["task"]].append((reply.strip() == row["answer"], finish == "stop", one_bos))
        for task, asked in outcomes.items():
            right, ended, one_bos = (sum(column) / len(asked) for column in zip(*asked, strict=True))
            print(f"{ask.__name__} {task}: right {right:.3f}, ended {ended:.3f}, one BOS {one_bos:.3f} of {len(asked)}")


if __name__ == "__main__":
    main()

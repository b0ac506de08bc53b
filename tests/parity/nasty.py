"""Which responses are hard to extract an answer from, and what does lm-evaluation-harness make of each?

``python -m tests.parity.nasty`` writes its answers to ``tests/evals/nasty.jsonl``, where they are known answers of the
ordinary tests; ``tox -e parity`` checks that they are still lm-eval's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KNOWN = Path(__file__).resolve().parent.parent / "evals" / "nasty.jsonl"
_GSM8K = (
    ("#### 18", "#### 18"),
    ("So it is 18.\n#### 18\n\nQuestion: x #### 7", "#### 18"),
    ("####18", "#### 18"),
    ("#### -5", "a\n#### -5"),
    ("#### 1,000", "#### 1,000"),
    ("#### 1000.", "#### 1,000"),
    ("#### 18.00", "#### 18"),
    ("#### $18", "#### 18"),
    ("The answer is $18.", "#### 18"),
    ("18 apples and 3 pears", "#### 3"),
    ("It costs $ . . .", "#### 18"),
    ("Hm ... .", "#### 18"),
    ("", "#### 18"),
    ("eighteen", "#### 18"),
    ("#### \uff11\uff18", "#### 18"),
    ("#### 18\0", "#### 18"),
    ("#### 18\u00a0", "#### 18"),
    ("first #### 4\nthen #### 18", "#### 18"),
    ("#### ,.", "#### 18"),
    ("\u2212" + "5", "#### -5"),
    ("#### 3/4", "#### 0.75"),
    ("####  18", "#### 18"),
    ("#### 1e3", "#### 1000"),
    ("x" * 5000 + " #### 18", "#### 18"),
    ("7,18.", "#### 18"),
)
_COT = (
    ("The answer is 18", "#### 18"),
    ("The answer is 39", "#### 39"),
    ("The answer is 18.", "#### 18"),
    ("The answer is 18\n", "#### 18"),
    ("The answer is 1", "#### 1"),
    ("the answer is 18.", "#### 18"),
    ("The answer is $18.", "#### 18"),
    ("The answer is -18!", "#### -18"),
    ("The answer is 18. The answer is 7.", "#### 18"),
    ("The answer is 1,800.50.", "#### 1800.50"),
    ("The answer is: 18.", "#### 18"),
    ("The answer is 18.\0", "#### 18"),
    ("", "#### 18"),
)
_MMLU = (
    ("A", "A"),
    (" A", "A"),
    ("a", "A"),
    ("(A)", "A"),
    ("A.", "A"),
    ("A. Paris", "A"),
    ("\nA", "A"),
    ("A\nB", "A"),
    ("\u0410", "A"),
    ("A\0", "A"),
    ("**A**", "A"),
    ("A\r", "A"),
    ("A\u2028B", "A"),
    ("", "A"),
    ("\u00c5", "A"),
    ("A\u3002", "A"),
)
_CHOICES = ("Guilty", "Guilty of Romance", "Not (guilty)", "\u00c9t\u00e9.")
_CHOSEN = (
    "It is (B), not (A)",
    "It was Guilty of Romance",
    "Guilty",
    "It was not (guilty)",
    "Not (guilty)",
    "NOT GUILTY",
    "\u00e9t\u00e9",
    "The answer: C",
    "The answer:\nA and: B",
    "The answer: E",
    "",
)
_SIMILAR = (  # response, right answers, wrong ones
    (
        "No, it is far too narrow.",
        ("No, it is far too narrow.", "Not without a telescope."),
        ("Yes, on clear nights.",),
    ),
    (
        "Yes, it is the only one",
        ("No, it is far too narrow.", "I have no comment."),
        ("Yes, it is the only building that can be seen.", "Yes, on clear nights."),
    ),
    ("", ("I have no comment.",), ("Yes.",)),
    (
        "The Moon . It is far , 384,400 km\naway.",
        ("The Moon . It is far away.", "It is 384,400 km away."),
        ("The Sun . It is far away.",),
    ),
    ("\u00c9t\u00e9 \u2014 na\u00efve, caf\u00e9!", ("\u00c9t\u00e9, na\u00efve caf\u00e9.",), ("Cafe.",)),
    ("a a a a a a", ("a a b.",), ("a.",)),
    ("It is black", ("It is black.", "I have no comment."), ("White, as its fur.",)),
    ("It is black.", ("It is black.", "I have no comment."), ("White, as its fur.",)),
    ("Pink.", ("Pink.",), ("White.",)),
)
CASES = {"gsm8k": _GSM8K, "gsm8k_cot": _COT, "mmlu_generative": _MMLU}
_CONFIGS = {
    "gsm8k": "gsm8k/gsm8k.yaml",
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "mmlu_generative": "mmlu/generative/_default_template_yaml",
}


def their_answers() -> Iterator[dict[str, Any]]:
    """Each case with what lm-eval's own filters and metric make of it."""
    import lm_eval
    import yaml
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters import build_filter_ensemble

    for task, cases in CASES.items():
        path = Path(lm_eval.__file__).parent / "tasks" / _CONFIGS[task]
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        options = {k: v for k, v in config["metric_list"][0].items() if k.startswith(("ignore", "regexes"))}
        for response, answer in cases:
            reference = answer.rpartition("####")[2].strip() if task == "gsm8k_cot" else answer
            row: dict[str, Any] = {"task": task, "response": response, "answer": reference, "found": {}, "score": {}}
            for one in config["filter_list"]:
                steps = [[s["function"], {k: v for k, v in s.items() if k != "function"}] for s in one["filter"]]
                asked = Instance("generate_until", {}, ("", {}), 0)
                asked.resps = [response]
                build_filter_ensemble(one["name"], steps).apply([asked])
                found = asked.filtered_resps[one["name"]]
                row["found"][one["name"]] = found
                scores = exact_match_fn(references=[reference], predictions=[found], **options)
                row["score"][one["name"]] = float(scores["exact_match"])
            yield row


def their_choices() -> Iterator[dict[str, Any]]:
    """Each response with what their multi_choice_regex makes of it, plainly and with case and punctuation ignored."""
    from lm_eval.filters.extraction import MultiChoiceRegexFilter

    for options in ({}, {"ignore_case": True, "ignore_punctuation": True}):
        theirs = MultiChoiceRegexFilter(r"(\([A-Z]\))", group_select=-1, **options)
        for response in _CHOSEN:
            ((found,),) = theirs.apply([[response]], [{"choices": list(_CHOICES)}])
            yield {"response": response, "choices": _CHOICES, "options": options, "found": found}


def their_similarities() -> Iterator[dict[str, Any]]:
    """Each response with their BLEU and ROUGE of it, to right and to wrong answers."""
    from lm_eval.tasks.truthfulqa.utils import process_results_gen

    for response, right, wrong in _SIMILAR:
        found = process_results_gen({"correct_answers": list(right), "incorrect_answers": list(wrong)}, [response])
        scores = {name: float(value) for name, value in found.items()}
        yield {"response": response, "right": right, "wrong": wrong, "score": scores}


def their_shots() -> dict[str, list[list[int]]]:
    """The rows that their sampler takes for the first questions of GSM8K, and where the question is to be left out."""
    from lm_eval.api.samplers import ContextSampler

    rows = [{"row": n} for n in range(7473)]
    plain, leaving = ContextSampler(rows, rnd=1234), ContextSampler(rows[:6], rnd=1234)
    return {
        "gsm8k": [[row["row"] for row in plain.sample(5)] for _ in range(3)],
        "leaving": [[row["row"] for row in leaving.sample(3, eval_doc=rows[n])] for n in range(6)],
    }


def their_known_answers() -> list[str]:
    """All of it, a line each."""
    rows = [*their_answers(), *({"task": "multi_choice_regex", **row} for row in their_choices())]
    rows += [{"task": "truthfulqa_gen", **row} for row in their_similarities()]
    return [json.dumps(row) for row in [*rows, {"task": "shots", **their_shots()}]]


if __name__ == "__main__":
    KNOWN.parent.mkdir(exist_ok=True)
    KNOWN.write_text("\n".join(their_known_answers()) + "\n", encoding="utf-8")

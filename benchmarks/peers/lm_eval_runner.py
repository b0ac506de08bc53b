"""How fast is lm-evaluation-harness? Its own command, by ``local-completions``; the end of each scoring is noted.

Runs in an environment that has lm-eval. The requests go as text: a tokenizer would only cost time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.task import ConfigurableTask

from benchmarks.peers import runner

_TASK = """\
task: speed
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: {tokens}}}
filter_list:
  - {{name: none, filter: [{{function: remove_whitespace}}, {{function: take_first}}]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""


def main() -> None:
    """Runs the command in this process, in the current folder, and reads what it logged."""
    work, stamp, folder = runner.work(), runner.Stamp(), Path.cwd()
    ConfigurableTask.process_results = stamp.after(ConfigurableTask.process_results)
    task = _TASK.format(questions=json.dumps(str(work.questions)), tokens=work.tokens)
    (folder / "speed.yaml").write_text(task, encoding="utf-8")
    model = f"model=truth,base_url={work.url}/v1/completions,num_concurrent={work.concurrency},tokenizer_backend=None"
    sys.argv = ["lm_eval", "run", "--model", "local-completions", "--model_args", model, "--tasks", "speed"]
    sys.argv += ["--include_path", str(folder), "--output_path", str(folder / "left"), "--log_samples"]
    cli_evaluate()
    (file,) = (folder / "left").rglob("results_*.json")
    logged = json.loads(file.read_text(encoding="utf-8"))
    score, n = logged["results"]["speed"]["exact_match,none"], logged["n-samples"]["speed"]["effective"]
    runner.tell(runner.Found(stamp.ns, score, n), folder)


if __name__ == "__main__":
    main()

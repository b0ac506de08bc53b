"""How does the tiny model learn its tasks, the same way every time?

A fixed number of AdamW steps. Each step takes a batch of every task; only the reply and the end token are scored.
Batches come from seeded generators and one thread does the sums, so one machine makes the same weights from the same
seed and number of steps.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tools.train_tiny.model import Weights, forward, initial_weights
from tools.train_tiny.tasks import Question, training_questions
from tools.train_tiny.tokens import BEGIN, END, encode

QUESTIONS_PER_STEP = {"add": 128, "compare": 24, "choice": 48}  # addition takes the most practice
PEAK_LEARNING_RATE = 3e-3
UNSCORED = -1


class Batch(NamedTuple):
    """Questions of one task as (batch, time) arrays: what goes in, and the token due next where it is scored."""

    tokens: jax.Array
    targets: jax.Array


def as_batch(questions: list[Question]) -> Batch:
    """Lay questions out in rows, padded to a multiple of eight so that a task has one shape and is compiled once."""
    rows = [([BEGIN, *encode(q.prompt)], [*encode(q.reply), END]) for q in questions]
    longest = max(len(prompt) + len(reply) - 1 for prompt, reply in rows)
    size = (len(rows), 8 * math.ceil(longest / 8))
    tokens, targets = np.full(size, END, np.int32), np.full(size, UNSCORED, np.int32)
    for row, (prompt, reply) in enumerate(rows):
        end = len(prompt) + len(reply) - 1
        tokens[row, :end] = (prompt + reply)[:-1]
        targets[row, len(prompt) - 1 : end] = reply
    return Batch(jnp.asarray(tokens), jnp.asarray(targets))


def loss(weights: Weights, batches: dict[str, Batch]) -> jax.Array:
    """Return the mean surprise at a scored token, averaged over the tasks."""
    return jnp.mean(jnp.stack([_surprise(weights, batch) for batch in batches.values()]))


def _surprise(weights: Weights, batch: Batch) -> jax.Array:
    scored = batch.targets != UNSCORED
    each = optax.softmax_cross_entropy_with_integer_labels(
        forward(weights, batch.tokens), jnp.where(scored, batch.targets, END)
    )
    return jnp.sum(each * scored) / jnp.sum(scored)


def share_right(weights: Weights, batch: Batch) -> jax.Array:
    """Return the share of questions answered right, which greedily means that each scored token is the likeliest."""
    likeliest = jnp.argmax(forward(weights, batch.tokens), axis=-1)
    return jnp.mean(jnp.all((likeliest == batch.targets) | (batch.targets == UNSCORED), axis=1))


def accuracy(weights: Weights, questions: dict[str, list[Question]]) -> dict[str, float]:
    """Return each task's share of right answers."""
    compiled = jax.jit(share_right)
    return {task: float(compiled(weights, as_batch(asked))) for task, asked in questions.items()}


def train(kept: dict[str, list[Question]], *, steps: int, seed: int, report: Callable[[str], None]) -> Weights:
    """Train from random weights, never on a kept question; report the accuracy on those ten times along the way."""
    optimizer = _optimizer(steps)

    def step(
        weights: Weights, state: optax.OptState, batches: dict[str, Batch]
    ) -> tuple[Weights, optax.OptState, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(weights, batches)
        updates, state = optimizer.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, value

    compiled = jax.jit(step)
    weights = initial_weights(seed)
    state = optimizer.init(weights)
    for number, batches in enumerate(islice(_batches(kept, seed), steps), start=1):
        weights, state, value = compiled(weights, state, batches)
        if number % max(1, steps // 10) == 0:
            scores = " ".join(f"{task}={share:.3f}" for task, share in accuracy(weights, kept).items())
            report(f"step {number} of {steps}: loss {float(value):.4f}, right {scores}")
    return weights


def _batches(kept: dict[str, list[Question]], seed: int) -> Iterator[dict[str, Batch]]:
    streams = {task: training_questions(task, seed, asked) for task, asked in kept.items()}
    while True:
        yield {task: as_batch(list(islice(streams[task], count))) for task, count in QUESTIONS_PER_STEP.items()}


def _optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, PEAK_LEARNING_RATE, warmup_steps=min(50, steps // 2), decay_steps=steps, end_value=PEAK_LEARNING_RATE / 20
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b1=0.9, b2=0.98, weight_decay=0.05, mask=_is_matrix),
    )


def _is_matrix(weights: Weights) -> dict[str, bool]:
    return {name: value.ndim == 2 for name, value in weights.items()}

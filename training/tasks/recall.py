"""Key-value recall for training: the evaluation's own format, lists of every length."""

from __future__ import annotations

import math
import random

from dllm_server.evaluation.recall import MAX_ASKED, MAX_ENTRIES, make_recall

from training.tasks.example import Example

MIN_ENTRIES = 4
MAX_SHORT_ENTRIES = 40


def sample(rng: random.Random) -> Example:
    """Three lists in four log-uniform in length, the others uniform."""
    if rng.random() < 0.75:
        return _example(rng, _log_uniform(rng, MAX_ENTRIES))
    return _example(rng, rng.randint(MIN_ENTRIES, MAX_ENTRIES))


def sample_short(rng: random.Random) -> Example:
    """Lists of at most MAX_SHORT_ENTRIES, log-uniform in length."""
    return _example(rng, _log_uniform(rng, MAX_SHORT_ENTRIES))


def _log_uniform(rng: random.Random, most: int) -> int:
    return round(math.exp(rng.uniform(math.log(MIN_ENTRIES), math.log(most))))


def _example(rng: random.Random, entries: int) -> Example:
    recall = make_recall(rng, entries=entries, asked=rng.randint(1, min(entries, MAX_ASKED)))
    return Example(recall.question, recall.answer)

"""Key-value recall for training: the evaluation's own format, lists of every length."""

from __future__ import annotations

import math
import random

from dllm_server.evaluation.recall import MAX_ASKED, MAX_ENTRIES, make_recall

from training.tasks.example import Example

MIN_ENTRIES = 4


def sample(rng: random.Random) -> Example:
    """Three lists in four log-uniform in length, the others uniform."""
    if rng.random() < 0.75:
        entries = round(math.exp(rng.uniform(math.log(MIN_ENTRIES), math.log(MAX_ENTRIES))))
    else:
        entries = rng.randint(MIN_ENTRIES, MAX_ENTRIES)
    recall = make_recall(rng, entries=entries, asked=rng.randint(1, min(entries, MAX_ASKED)))
    return Example(recall.question, recall.answer)

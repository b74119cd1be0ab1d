"""Fields of a sentence as JSON: the evaluation's own, in trained wordings."""

from __future__ import annotations

import random

from dllm_server.evaluation.fields import make_fields
from dllm_server.evaluation.wording import Wording

from training.tasks.example import Example


def sample(rng: random.Random) -> Example:
    """Any of the schemas."""
    made = make_fields(rng, Wording.TRAINED)
    return Example(made.question, made.answer)

"""The load every system under test gets: mixed requests, the same for a seed."""

from __future__ import annotations

import random

from dllm_server.evaluation.tasks import Family, make_items
from dllm_server.models.tokenizer import Tokenizer

from benchmarks.job import Job

SEED = 7_654_321


def mixed_jobs(tokenizer: Tokenizer, count: int, seed: int = SEED) -> list[Job]:
    """Questions of the short families and recalls, with canvases of 32 to 128 tokens, shuffled."""
    rng = random.Random(seed)
    families = [family for family in Family if family is not Family.RECALL]
    jobs = []
    for index in range(count):
        family = Family.RECALL if index % 8 == 7 else families[index % len(families)]
        item = make_items(family, 1, seed + index)[0]
        prompt = tokenizer.encode_chat([{"role": "user", "content": item.question}])
        jobs.append(Job(prompt, rng.choice([32, 64, 96, 128])))
    rng.shuffle(jobs)
    return jobs

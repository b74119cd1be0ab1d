"""Random mixes of requests: lengths, blocks, strategies, confidences, ratios, temperatures and seeds."""

from __future__ import annotations

import random

from checkpoints import EOS, MASK
from dllm_server.engine.requests.messages import Generate
from dllm_server.settings import Confidence, Strategy
from engines import make_request

VALUES = {
    Strategy.QUOTA: (1.0, 2.0, 5.0),
    Strategy.SEQUENTIAL: (1.0, 3.0),
    Strategy.THRESHOLD: (0.3, 0.9, 1.0),
    Strategy.FACTOR: (0.5, 1.5),
    Strategy.ENTROPY_BOUND: (0.2, 2.0),
}
MIXED = {
    "temperature": (0.0, 0.0, 0.7, 2.0),
    "top_p": (1.0, 1.0, 0.8),
    "top_k": (0, 0, 5),
}


def make_mixed_request(request_id: str, dice: random.Random, *, longest: int = 48) -> Generate:
    """A request of at most ``longest`` tokens; one in four prompts holds the mask token.

    No prompt is of masks alone: without another token all positions tie, and rounding decides.
    """
    prompt = [dice.randrange(MASK) for _ in range(dice.randint(1, longest - 1))]
    if len(prompt) > 1 and dice.random() < 0.25:
        prompt[dice.randrange(1, len(prompt))] = MASK
    strategy = dice.choice(list(VALUES))
    probabilities = [Confidence.PROBABILITY, Confidence.MARGIN, Confidence.RANDOM]
    return make_request(
        request_id,
        prompt=prompt,
        max_tokens=dice.randint(1, longest - len(prompt)),
        block_length=dice.choice((1, 3, 8, 16, 64)),
        refresh_interval=dice.choice((None, None, 1, 2, 3)),
        strategy=strategy,
        value=dice.choice(VALUES[strategy]),
        confidence=dice.choice([*probabilities, Confidence.ENTROPY])
        if strategy in (Strategy.QUOTA, Strategy.ENTROPY_BOUND)
        else dice.choice(probabilities),
        retention_ratio=dice.choice((1.0, 1.0, 0.5, 0.1, 0.001)),
        prompt_refresh_interval=dice.choice((1, 1, 2, 3, 1000)),
        refresh_window=dice.choice((None, None, 0, 5)),
        stop_token_ids=dice.choice(([], [EOS], [EOS, *dice.sample(range(MASK), 3)])),
        min_tokens=dice.choice((0, 0, dice.randint(1, longest))),
        top_logprobs=dice.choice((0, 0, 0, 1, 20)),
        seed=dice.choice((0, 1, dice.getrandbits(63))),
        **{name: dice.choice(values) for name, values in MIXED.items()},
    )


def make_mix(count: int, seed: int, *, longest: int = 48) -> list[Generate]:
    dice = random.Random(seed)
    return [make_mixed_request(f"r{number}", dice, longest=longest) for number in range(count)]

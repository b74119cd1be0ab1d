"""Words that no list holds, spelled so that they could be words."""

from __future__ import annotations

import random

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"


def invented(rng: random.Random) -> str:
    """One to three syllables in lower case, three letters at least."""
    syllables = (
        rng.choice(_CONSONANTS) + rng.choice(_VOWELS) + rng.choice(("", "", rng.choice(_CONSONANTS)))
        for _ in range(rng.randint(1, 3))
    )
    word = "".join(syllables)
    return word if len(word) > 2 else word + rng.choice(_CONSONANTS)

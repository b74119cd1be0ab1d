"""What is asked: a prompt and the longest answer."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_server.load.arrivals import Draw
from dllm_server.load.lengths import LengthProfile

_WORDS = (
    "the of and to in is that it was for on are as with they be at one have this from or had by word but "
    "what some we can out other were all there when up use your how said an each she which do their time "
    "if will way about many then them write would like so these her long make thing see him two has look "
    "more day could go come did number sound no most people my over know water than call first who may "
    "down side been now find any new work part take get place made live where after back little only "
    "round man year came show every good me give our under name very through just form sentence great "
    "think say help low line differ turn cause much mean before move right boy old too same tell does set "
    "three want air well also play small end put home read hand port large spell add even land here must "
    "big high such follow act why ask men change went light kind off need house picture try us again "
    "animal point mother world near build"
)
WORDS = _WORDS.split()


@dataclass(frozen=True, slots=True)
class Question:
    """``messages`` of a chat, or a ``text``, which a chat asks as its user's."""

    max_tokens: int
    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TextScale:
    """Prompt tokens that a text of ``WORDS`` comes to: those of the template, and each word's."""

    overhead: float = 0.0
    tokens_per_word: float = 1.0

    @classmethod
    def through(cls, short: tuple[int, int], long: tuple[int, int]) -> TextScale:
        """From two measured texts, each its words and its prompt tokens."""
        slope = (long[1] - short[1]) / (long[0] - short[0])
        if slope <= 0:
            raise ValueError(
                f"{short[0]} words were {short[1]} prompt tokens and {long[0]} were {long[1]}: "
                "the endpoint does not count prompts"
            )
        return cls(max(short[1] - short[0] * slope, 0.0), slope)

    def words(self, prompt_tokens: int) -> int:
        return max(round((prompt_tokens - self.overhead) / self.tokens_per_word), 1)


def random_text(words: int, rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def of_profile(profile: LengthProfile, scale: TextScale, max_tokens: int | None) -> Draw[Question]:
    """Random words, so that no two prompts share a beginning that a cache could know."""

    def draw(rng: random.Random, index: int) -> Question:
        words = scale.words(profile.prompt_tokens(rng))
        return Question(max_tokens or profile.max_tokens, random_text(words, rng))

    return draw


def in_turn(questions: Sequence[Question]) -> Draw[Question]:
    """Those of a file, one after the other, again and again."""
    return lambda rng, index: questions[index % len(questions)]


def read_questions(path: Path, default_max_tokens: int, max_tokens: int | None = None) -> list[Question]:
    """A text file asks each line. A JSONL file has objects with ``prompt`` or ``messages``, and, if they
    like, ``max_tokens``; ``ValueError`` names the line that is wrong. ``max_tokens`` here goes before
    theirs."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        if path.suffix not in (".jsonl", ".json"):
            found.append(Question(max_tokens or default_max_tokens, line))
            continue
        try:
            found.append(_question(json.loads(line), default_max_tokens, max_tokens))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    if not found:
        raise ValueError(f"{path}: holds no prompts")
    return found


def _question(row: Any, default_max_tokens: int, max_tokens: int | None) -> Question:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    text, messages = row.get("prompt", ""), row.get("messages", [])
    if not isinstance(text, str) or not isinstance(messages, list) or bool(text) == bool(messages):
        raise ValueError("has neither a prompt (text) nor messages (a list), or both")
    length = max_tokens or row.get("max_tokens", default_max_tokens)
    if not isinstance(length, int) or length < 1:
        raise ValueError("max_tokens: not a whole number from 1")
    return Question(length, text, tuple(messages))

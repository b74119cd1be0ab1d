"""reasoning-gym's word lists, as the task families use them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Words:
    """`running` is the story's words in order; `story` its distinct words; `listed` the spelling list."""

    running: tuple[str, ...]
    story: tuple[str, ...]
    listed: tuple[str, ...]


def words_from_texts(story_text: str, listed_text: str) -> Words:
    """The same expressions reasoning-gym's datasets apply to the same files."""
    found = re.findall(r"\b\w+\b", story_text)
    return Words(
        running=tuple(word for word in found if word.isalnum()),
        story=tuple(sorted(set(found))),
        listed=tuple(word.strip() for word in listed_text.splitlines() if word.strip().isalnum()),
    )


def words_from_reasoning_gym() -> Words:
    """Reads the lists out of the installed reasoning-gym."""
    from reasoning_gym.data import read_data_file

    return words_from_texts(read_data_file("in_the_year_2889.txt"), read_data_file("words3to10.txt"))


def save_words(words: Words, path: Path) -> None:
    """JSON, so that a machine without reasoning-gym can train."""
    fields = {"running": words.running, "story": words.story, "listed": words.listed}
    path.write_text(json.dumps(fields), encoding="utf-8")


def load_words(path: Path) -> Words:
    """The inverse of `save_words`."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    return Words(tuple(fields["running"]), tuple(fields["story"]), tuple(fields["listed"]))

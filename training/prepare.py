"""Writes what training needs of reasoning-gym into files: `python -m training.prepare --help`."""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

from dllm_server.evaluation.tasks import FAMILIES, HELD_OUT_QUESTIONS, make_items
from dllm_server.evaluation.wording import Wording
from dllm_server.evaluation.words import save_words, words_from_reasoning_gym

from training.phrases import check_against_content

WORDS, QUESTIONS = "words.json", "held_out.jsonl"


def prepare(folder: Path) -> None:
    """Word lists and the held-out questions, which training excludes and evaluates on."""
    folder.mkdir(parents=True, exist_ok=True)
    words = words_from_reasoning_gym()
    check_against_content(words)
    save_words(words, folder / WORDS)
    with (folder / QUESTIONS).open("w", encoding="utf-8") as file:
        for wording, family in product(Wording, FAMILIES):
            for item in make_items(family, HELD_OUT_QUESTIONS, wording=wording):
                fields = {
                    "family": family.value,
                    "wording": wording.value,
                    "question": item.question,
                    "answer": item.answer,
                    "max_tokens": item.max_tokens,
                    "tools": item.tools,
                }
                file.write(json.dumps(fields) + "\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/training"))
    prepare(parser.parse_args().out)


if __name__ == "__main__":
    main()

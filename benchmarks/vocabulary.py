"""A tokenizer as large as a real one, for models with random weights."""

from __future__ import annotations

import random
from pathlib import Path
from string import ascii_lowercase

from dllm_server.models.config import ModelConfig
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

LONGEST_WORD = 8


def write_tokenizer(directory: Path, config: ModelConfig) -> None:
    """``tokenizer.json`` of as many tokens as the model has: every byte, its mask and ends at their ids, and
    words of random letters, half of them after a space, that no merge makes."""
    vocab_size = config.vocab_size
    special = {end: f"<|end {end}|>" for end in config.eos_token_ids} | {config.mask_token_id: "<|mask|>"}
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, rng = set(words), random.Random(vocab_size)
    space = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(" ")[0][0]
    while len(words) + len(special) < vocab_size:
        letters = "".join(rng.choices(ascii_lowercase, k=rng.randint(3, LONGEST_WORD)))
        word = rng.choice(("", space)) + letters
        if word not in known:
            known.add(word)
            words.append(word)
    ids = (number for number in range(vocab_size) if number not in special)
    vocabulary = dict(zip(words, ids, strict=True)) | {text: number for number, text in special.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text) for text in special.values()])
    tokenizer.save(str(directory / "tokenizer.json"))

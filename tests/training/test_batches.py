from training.batches import BLOCK_TOKENS, Batcher
from training.tasks.mixture import make_mixture
from training.tokenizer import END_OF_TEXT, build_tokenizer, token_id
from training.words import words_from_reasoning_gym


def make_batcher(seed: int = 1) -> Batcher:
    mixture = make_mixture(words_from_reasoning_gym())
    return Batcher(mixture, build_tokenizer(), sequences=96, micro_tokens=8_192, seed=seed)


def test_a_step_is_a_function_of_seed_and_index() -> None:
    first, again, other = make_batcher().step(3), make_batcher().step(3), make_batcher(seed=2).step(3)

    assert [batch.tokens.tolist() for batch in first] == [batch.tokens.tolist() for batch in again]
    assert [batch.tokens.tolist() for batch in first] != [batch.tokens.tolist() for batch in other]


def test_every_sequence_is_in_one_micro_batch_within_the_budget() -> None:
    batches = make_batcher().step(0)

    assert sum(len(batch.tokens) for batch in batches) == 96
    assert all(batch.tokens.size <= 8_192 + 2 * batch.tokens.shape[1] for batch in batches)


def test_the_trained_block_lies_in_the_canvas_and_padding_ends_the_answer() -> None:
    end = token_id(build_tokenizer(), END_OF_TEXT)
    for batch in make_batcher().step(0):
        for tokens, (first, block_start, answer_end) in zip(batch.tokens, batch.rows.T, strict=True):
            assert first < block_start <= len(tokens) - BLOCK_TOKENS
            assert (tokens[answer_end:] == end).all()
            assert (tokens[first:answer_end] != end).all()

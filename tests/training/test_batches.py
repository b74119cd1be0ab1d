import pytest
from dllm_server.evaluation.words import words_from_reasoning_gym

from training.batches import BLOCK_TOKENS, BatchArrays, Batcher
from training.loader import step_stream
from training.tasks.mixture import FAMILIES, make_curriculum
from training.tokenizer import END_OF_TEXT, END_OF_TURN, USER, build_tokenizer, token_id

TOKENIZER = build_tokenizer()
STEPS = 10
FIRST_WHOLE_STEP = 3
SIGNS = {  # of the original wordings
    "recall": "Remember these entries: ",
    "chain_sum": " arithmetic problem: ",
    "word_sorting": "Now, sort these words in ",
}


def make_batcher(seed: int = 1, steps: int = STEPS) -> Batcher:
    curriculum = make_curriculum(words_from_reasoning_gym())
    return Batcher(curriculum, TOKENIZER, sequences=96, micro_tokens=8_192, steps=steps, seed=seed)


def contents(step: list[BatchArrays]) -> list[tuple[list[list[int]], list[list[int]]]]:
    return [(batch.tokens.tolist(), batch.rows.tolist()) for batch in step]


def questions(step: list[BatchArrays], family: str) -> list[str]:
    """What the user last asked in the rows of `family`."""
    found = []
    for batch in step:
        for tokens, (first, _, answer_end, index) in zip(batch.tokens, batch.rows.T, strict=True):
            if FAMILIES[index] == family:
                text = TOKENIZER.decode(tokens[first:answer_end].tolist(), skip_special_tokens=False)
                found.append(text.rpartition(USER)[2].partition(END_OF_TURN)[0])
    return found


@pytest.mark.parametrize("index", [FIRST_WHOLE_STEP - 1, FIRST_WHOLE_STEP])
def test_a_step_is_a_function_of_seed_index_and_steps(index: int) -> None:
    first, again, other = make_batcher().step(index), make_batcher().step(index), make_batcher(2).step(index)

    assert contents(first) == contents(again)
    assert contents(first) != contents(other)


def test_the_number_of_steps_decides_where_the_whole_mixture_begins() -> None:
    ten, more = make_batcher(steps=10), make_batcher(steps=11)

    assert contents(ten.step(FIRST_WHOLE_STEP - 1)) == contents(more.step(FIRST_WHOLE_STEP - 1))
    assert contents(ten.step(FIRST_WHOLE_STEP)) != contents(more.step(FIRST_WHOLE_STEP))


@pytest.mark.parametrize(("first", "workers"), [(0, 1), (0, 3), (2, 0), (4, 2)])
def test_neither_workers_nor_resuming_change_a_step(first: int, workers: int) -> None:
    batcher = make_batcher()
    expected = [contents(batcher.step(index)) for index in range(first, STEPS)]

    with step_stream(batcher, first, STEPS, workers) as stream:
        streamed = [contents(step) for step in stream]

    assert streamed == expected


@pytest.mark.parametrize("index", [0, STEPS - 1])
def test_a_row_bears_its_family(index: int) -> None:
    step = make_batcher().step(index)

    asked = {family: questions(step, family) for family in FAMILIES}

    assert sum(map(len, asked.values())) == 96
    for family, sign in SIGNS.items():
        assert any(sign in question for question in asked.pop(family))
        assert not any(sign in question for questions in asked.values() for question in questions)


def test_every_sequence_is_in_one_micro_batch_within_the_budget() -> None:
    batches = make_batcher().step(0)

    assert sum(len(batch.tokens) for batch in batches) == 96
    assert all(batch.tokens.size <= 8_192 + 2 * batch.tokens.shape[1] for batch in batches)


def test_the_trained_block_lies_in_the_canvas_and_padding_ends_the_answer() -> None:
    end = token_id(build_tokenizer(), END_OF_TEXT)
    for batch in make_batcher().step(0):
        for tokens, (first, block_start, answer_end, _) in zip(batch.tokens, batch.rows.T, strict=True):
            assert first < block_start <= len(tokens) - BLOCK_TOKENS
            assert (tokens[answer_end:] == end).all()
            assert (tokens[first:answer_end] != end).all()

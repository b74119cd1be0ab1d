import torch

from training.selection import kept_counts, select_keys


def test_a_head_keeps_its_quota_and_nothing_inside_the_block() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 40, 8)
    candidates = torch.ones(2, 40, dtype=torch.bool)
    candidates[:, 10:14] = False

    kept = select_keys(queries, keys, candidates, torch.tensor([5, 36]))

    assert kept.sum(-1).tolist() == [[5] * 3, [36] * 3]
    assert not kept[:, :, 10:14].any()


def test_a_shared_selection_is_the_same_for_every_head() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 40, 8)
    candidates = torch.ones(1, 40, dtype=torch.bool)

    kept = select_keys(queries, keys, candidates, torch.tensor([7]), is_shared=True)

    assert (kept == kept[:, :1]).all()


def test_neighbours_of_a_high_score_come_with_it() -> None:
    queries, keys = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 20, 1)
    keys[0, 0, 9] = 5.0

    kept = select_keys(queries, keys, torch.ones(1, 20, dtype=torch.bool), torch.tensor([3]))

    assert kept[0, 0].nonzero().flatten().tolist() == [8, 9, 10]


def test_the_quota_is_the_floor_and_at_least_one() -> None:
    visible = torch.ones(2, 100, dtype=torch.bool)

    assert kept_counts(visible, 32, torch.tensor([0.5, 0.001])).tolist() == [34, 1]

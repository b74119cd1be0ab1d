from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dllm_kernels.routing import RoutingRule, Score
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.implementations import CPU, HAS_GPU, needs_triton

pytestmark = needs_triton


def test_a_table_survives_its_file_and_keeps_other_devices_entries(tmp_path: Path) -> None:
    from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable

    path = tmp_path / "cache" / "table.json"
    first, second = ConfigurationTable(), ConfigurationTable()
    first.put("paged_attention", (64, 32), Configuration({"block_keys": 32}, 8, 5, 2))
    first.put_variant("lm_head", (2048,), "fused")
    second.put("rms_norm", (1,), Configuration({}, 4, 1))

    first.save(path, "one card")
    second.save(path, "another card")

    assert ConfigurationTable.load(path, "one card") == first
    assert ConfigurationTable.load(path, "another card") == second
    assert ConfigurationTable.load(path, "a third card") == ConfigurationTable()


@pytest.mark.parametrize("content", ["", '{"one card": {"entr', "[]"])
def test_a_broken_file_says_so_and_is_written_anew(tmp_path: Path, content: str) -> None:
    from dllm_kernels.gpu.configurations import BrokenTableError, Configuration, ConfigurationTable

    path = tmp_path / "table.json"
    path.write_text(content)
    table = ConfigurationTable({"rms_norm 1": Configuration({}, 4, 1)})

    with pytest.raises(BrokenTableError, match=r"table\.json"):
        ConfigurationTable.load(path, "one card")
    table.save(path, "one card")

    assert ConfigurationTable.load(path, "one card") == table
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_is_not_valid_for_other_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    from dllm_kernels.gpu import configurations

    before = configurations.device_name(CPU)
    monkeypatch.setitem(configurations.CANDIDATES, "rms_norm", configurations.CANDIDATES["rms_norm"][:1])

    assert configurations.device_name(CPU) != before


def test_a_size_that_was_not_measured_takes_the_first_candidate() -> None:
    from dllm_kernels.gpu.configurations import CANDIDATES, ConfigurationTable

    assert ConfigurationTable().get("paged_attention", (3,)) == CANDIDATES["paged_attention"][0]


def test_warm_up_fills_the_table_for_the_keys_that_serving_asks() -> None:
    from dllm_kernels.gpu.configurations import CANDIDATES, ConfigurationTable
    from dllm_kernels.gpu.example_inputs import ModelShape
    from dllm_kernels.gpu.operations import TritonOperations
    from dllm_kernels.gpu.warm_up import Sizes, warm_up

    asked: list[str] = []

    class Recorder(ConfigurationTable):
        def get(self, kernel: str, key: tuple[object, ...]) -> object:
            asked.append(self.name_of(kernel, key))
            return super().get(kernel, key)

    table, device = Recorder(), torch.device("cuda") if HAS_GPU else CPU
    shape = ModelShape(4, 2, 16, 32, 24, 70, torch.float32, device)
    warm_up(shape, Sizes((3,), (4,), ((1, 9, 2, 3),), ((2, 2, 9), (1, 65, 9))), table, cpus=1)
    asked.clear()

    run = TritonOperations(table)
    run.rms_norm(shape.random(3, 32), shape.random(32), 1e-5)
    run.silu_and_multiply(shape.random(4, 48))
    banned = torch.zeros(1, dtype=torch.int64, device=device)
    run.lm_head_choose(shape.random(4, 32), shape.random(70, 32), banned, None, 2048)

    assert len(asked) == 3
    assert set(asked) <= set(table.entries)
    assert {name.split()[0] for name in table.entries} >= set(CANDIDATES) - {
        name
        for name in CANDIDATES
        if name.startswith(("lm_head_many", "expert", "route")) or name.endswith("sampled")
    }


@needs_triton
def test_warm_up_measures_what_a_model_of_experts_asks_for() -> None:
    from dllm_kernels.gpu.configurations import ConfigurationTable
    from dllm_kernels.gpu.example_inputs import ExpertsShape, ModelShape, expert_weights
    from dllm_kernels.gpu.experts import OPERATION
    from dllm_kernels.gpu.operations import TritonOperations
    from dllm_kernels.gpu.warm_up import Sizes, warm_up

    asked: list[str] = []

    class Recorder(ConfigurationTable):
        def get(self, kernel: str, key: tuple[object, ...]) -> object:
            asked.append(self.name_of(kernel, key))
            return super().get(kernel, key)

    table, device = Recorder(), torch.device("cuda") if HAS_GPU else CPU
    rule = RoutingRule(score=Score.SIGMOID, chosen=2, groups=2, renormalises=True, shared=1)
    experts = ExpertsShape(6, 8, rule)
    shape = ModelShape(2, 1, 16, 16, 0, 70, torch.float32, device, experts=experts)
    warm_up(shape, Sizes(token_rows=(4,)), table, cpus=1)
    asked.clear()

    run, weights = TritonOperations(table), expert_weights(shape, experts)
    x = shape.random(3, 16)
    taken, at = run.route(torch.randn(3, 6, device=device), None, rule)
    run.add_experts_mlp(x, weights.gate_up, weights.down, taken, at, x.clone())

    assert len(asked) == 5
    assert set(asked) <= set(table.entries)
    assert [name.split()[0] for name in table.variants if name.startswith(OPERATION)] == [OPERATION]


def test_warm_up_knows_heads_that_are_normed_and_turn_in_part_and_layers_without_an_mlp() -> None:
    from dllm_kernels.gpu.configurations import ConfigurationTable
    from dllm_kernels.gpu.example_inputs import ModelShape
    from dllm_kernels.gpu.rope import rope_to_pages
    from dllm_kernels.gpu.warm_up import Sizes, warm_up

    asked: list[str] = []

    class Recorder(ConfigurationTable):
        def get(self, kernel: str, key: tuple[object, ...]) -> object:
            asked.append(self.name_of(kernel, key))
            return super().get(kernel, key)

    table, device = Recorder(), torch.device("cuda") if HAS_GPU else CPU
    shape = ModelShape(4, 2, 16, 32, 0, 70, torch.float32, device, turned=8, has_head_norms=True)
    warm_up(shape, Sizes(token_rows=(4,)), table, cpus=1)
    measured = set(table.entries)
    asked.clear()

    angles, slots = torch.ones(4, 8, device=device), torch.arange(4, device=device)
    pools = shape.random(4, 2, 16), shape.random(4, 2, 16)
    qkv, norms = shape.random(4, shape.qkv_width), shape.head_norms()
    rope_to_pages(table, qkv, angles, angles, 4, 2, *pools, slots, norms)

    assert norms is not None
    assert len(asked) == 1
    assert set(asked) <= measured
    assert {name.split()[0] for name in measured} == {"rms_norm", "rope", "linear", "add_linear"}


@settings(deadline=None)  # the first call imports the kernels
@given(st.integers(1, 4096), st.integers(1, 4096), st.sampled_from([16, 32, 64, 128]))
def test_splits_of_keys_fill_the_device_and_are_never_empty_by_a_whole_tile(
    programs: int, keys: int, block: int
) -> None:
    from dllm_kernels.gpu.paged_attention import MOST_SPLITS, split_count

    splits = split_count(programs, keys, block, 132)

    assert 1 <= splits <= min(MOST_SPLITS, -(-keys // block))
    if splits > 1:
        assert programs * splits <= 2 * 132


@given(st.integers(1, 5000), st.integers(1, 200000), st.sampled_from([1024, 4096]))
def test_a_chunk_of_logits_is_whole_blocks_within_the_buffer(rows: int, vocabulary: int, block: int) -> None:
    from dllm_kernels.gpu.logits_chunk import BUFFER_BYTES, chunk_columns

    columns = chunk_columns(rows, vocabulary, block)

    assert columns % block == 0
    assert columns == block or 4 * rows * columns <= BUFFER_BYTES
    assert columns < vocabulary + block


def test_a_head_wider_than_the_kernels_hold_names_the_remedy() -> None:
    from dllm_kernels.gpu.jit import block_dim

    with pytest.raises(ValueError, match="head_dim 256 exceeds 128: use the torch backend"):
        block_dim(256)

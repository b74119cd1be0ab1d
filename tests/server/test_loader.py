from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Size, make_checkpoint, make_config, make_weights, write_config, write_shards
from dllm_server.models.files import ModelError
from dllm_server.models.loader import dummy_model, load_model
from dllm_server.models.registry import find_family, open_checkpoint
from dllm_server.models.transformer import Transformer
from safetensors.torch import save_file
from torch import Tensor

CPU = torch.device("cpu")
SIZES = [
    Size(),
    Size(n_kv_heads=2),
    Size(is_tied=True),
    Size(family="dream", n_kv_heads=1),
    Size(family="dream", is_tied=True),
]


def load(directory: Path, dtype: torch.dtype = torch.float32) -> Transformer:
    return load_model(open_checkpoint(directory), CPU, dtype)


def refusal(directory: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(ModelError) as refused:
        load(directory)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def make_broken(
    directory: Path,
    *,
    config: dict[str, Any] | None = None,
    without: str = "",
    replaced: dict[str, Tensor] | None = None,
) -> Path:
    """A LLaDA checkpoint with some config fields changed, a weight missing or weights replaced."""
    weights = make_weights(Size()) | (replaced or {})
    weights.pop(without, None)
    write_config(directory, make_config(Size()) | (config or {}))
    write_shards(directory, weights, 1)
    return directory


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_weight_reaches_its_place(tmp_path: Path, size: Size, shards: int) -> None:
    directory = make_checkpoint(tmp_path, size, shards=shards)
    checkpoint = open_checkpoint(directory)
    weights = make_weights(size)

    model = load(directory)

    targets = checkpoint.family.weight_targets(checkpoint.config)
    assert set(targets) == set(weights)
    for name, target in targets.items():
        assert torch.equal(model.slice_of(target), weights[name]), name
    assert ("lm_head" in model.weights) is not size.is_tied


def test_fused_weights_are_covered_exactly_once(tmp_path: Path) -> None:
    directory = make_checkpoint(tmp_path, Size(family="dream", n_kv_heads=2))
    checkpoint = open_checkpoint(directory)
    model = load(directory)
    for tensor in model.weights.values():
        tensor.zero_()

    for target in checkpoint.family.weight_targets(checkpoint.config).values():
        model.slice_of(target).add_(1)

    assert all((tensor == 1).all() for tensor in model.weights.values())


def test_weights_are_converted_to_the_asked_dtype(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path), torch.bfloat16)

    assert {tensor.dtype for tensor in model.weights.values()} == {torch.bfloat16}


def test_progress_ends_at_the_size_of_all_shards(tmp_path: Path) -> None:
    directory, seen = make_checkpoint(tmp_path, shards=3), []

    load_model(open_checkpoint(directory), CPU, torch.float32, progress=lambda *report: seen.append(report))

    total = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
    assert len(seen) == 3
    assert seen[-1] == (total, total)


@pytest.mark.parametrize(
    "name", ["rotary.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq", "model.position_ids"]
)
def test_tables_that_are_computed_here_are_ignored(tmp_path: Path, name: str) -> None:
    make_broken(tmp_path, replaced={name: torch.ones(4)})

    load(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "model.transformer.blocks.0.q_norm.weight",
        "model.transformer.blocks.1.q_proj.bias",
        "model.transformer.blocks.2.q_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "inv_frequency",
    ],
)
def test_a_weight_that_nothing_reads_is_refused(tmp_path: Path, name: str) -> None:
    make_broken(tmp_path, replaced={name: torch.ones(4), "zzz": torch.ones(4)})

    assert f"model.safetensors: weight {name} is not one of LLaDA's with 2 layers: correct" in refusal(
        tmp_path
    )


def test_a_vision_tower_is_called_by_its_name(tmp_path: Path) -> None:
    name = "model.vision_tower.embed.weight"
    make_broken(tmp_path, replaced={name: torch.ones(4)})

    assert f"{name} is not one of LLaDA's with 2 layers: it belongs to images" in refusal(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_weight_that_is_not_finite_is_named(tmp_path: Path, shards: int, value: float) -> None:
    make_checkpoint(tmp_path)
    weights, name = make_weights(Size()), "model.transformer.blocks.1.up_proj.weight"
    weights[name][3, 7] = value
    write_shards(tmp_path, weights, shards)

    assert f"{name} holds a NaN or an infinity in float32" in refusal(tmp_path)


def test_a_weight_that_the_models_dtype_cannot_hold_is_named(tmp_path: Path) -> None:
    name = "model.transformer.ln_f.weight"
    make_broken(tmp_path, replaced={name: torch.full((32,), 3.4e38)})

    load(tmp_path, torch.float32)
    with pytest.raises(ModelError, match=f"{name} holds a NaN or an infinity in bfloat16"):
        load(tmp_path, torch.bfloat16)


def test_a_weight_in_two_shards_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, shards=2)
    for path in tmp_path.glob("*.safetensors"):
        save_file(make_weights(Size()), path)

    assert "is in another shard too" in refusal(tmp_path)


def test_a_tied_checkpoint_may_store_its_head_all_the_same(tmp_path: Path) -> None:
    make_broken(tmp_path, config={"weight_tying": True})

    model = load(tmp_path)

    assert torch.equal(model.lm_head, model.weights["embedding"])


def test_padding_rows_of_the_vocabulary_are_not_projected(tmp_path: Path) -> None:
    rows = {
        name: torch.zeros(70, 32)
        for name in ("model.transformer.wte.weight", "model.transformer.ff_out.weight")
    }
    make_broken(tmp_path, config={"embedding_size": 70}, replaced=rows)

    assert load(tmp_path).lm_head.shape == (64, 32)


def test_a_missing_directory_file_is_named(tmp_path: Path) -> None:
    assert "config.json: No such file or directory" in refusal(tmp_path)
    write_config(tmp_path, make_config(Size()))
    assert "holds neither model.safetensors nor model.safetensors.index.json" in refusal(tmp_path)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    make_broken(tmp_path, without="model.transformer.blocks.1.up_proj.weight")

    assert "1 weights are in no shard, the first is model.transformer.blocks.1.up_proj.weight" in refusal(
        tmp_path
    )


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    make_broken(tmp_path, replaced={"model.transformer.ln_f.weight": torch.ones(31)})

    assert "ln_f.weight has shape [31], config.json asks for [32]" in refusal(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused_and_not_read_as_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    make_broken(tmp_path, replaced={"model.transformer.ln_f.weight": torch.ones(32).to(dtype)})

    kind = str(dtype).removeprefix("torch.")
    assert f"ln_f.weight is {kind}, only plain weights are read" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int) -> None:
    path = make_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])

    assert "model.safetensors: truncated or not a safetensors file" in refusal(tmp_path)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json"]
)
def test_a_pointer_of_git_lfs_is_recognised(tmp_path: Path, file: str) -> None:
    make_checkpoint(tmp_path)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4976698672\n"
    (tmp_path / file).write_text(pointer)

    assert f"{tmp_path / file}: a Git LFS pointer, not the file itself: run `git lfs pull`" in refusal(
        tmp_path
    )


def test_a_shard_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, shards=2)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    shard.write_text("version https://git-lfs.github.com/spec/v1\n")

    assert refusal(tmp_path).startswith(f"{shard}: a Git LFS pointer")


@pytest.mark.parametrize(
    ("present", "told"),
    [
        ("pytorch_model.bin", "pytorch_model.bin is a pickle, which can run code and is never read: convert"),
        ("model-00001-of-00002.safetensors", "is there, but no index names it"),
        ("transformer/model.safetensors", "transformer/model.safetensors lies in a subfolder: point at"),
        ("README.md", "only safetensors are read: download the weights"),
    ],
)
def test_what_lies_in_place_of_the_weights_is_told(tmp_path: Path, present: str, told: str) -> None:
    write_config(tmp_path, make_config(Size()))
    (tmp_path / present).parent.mkdir(exist_ok=True)
    (tmp_path / present).write_bytes(b"")

    assert "holds neither model.safetensors nor model.safetensors.index.json" in refusal(tmp_path)
    assert told in refusal(tmp_path)


def test_shards_in_a_subfolder_are_told_apart_from_missing_ones(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "shards", shards=2)
    write_config(tmp_path, make_config(Size()))
    index = json.loads((tmp_path / "shards/model.safetensors.index.json").read_text())
    inside = {name: f"shards/{file}" for name, file in index["weight_map"].items()}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": inside}))

    assert "shard shards/model-00001-of-00002.safetensors is named by" in refusal(tmp_path)
    assert "shards in other folders are not read" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
@pytest.mark.parametrize(
    ("settings", "shown"), [({"quant_method": "fp8"}, "fp8"), ({"bits": 4}, "not named")]
)
def test_a_quantised_checkpoint_is_refused_by_its_config(
    tmp_path: Path, name: str, settings: dict[str, Any], shown: str
) -> None:
    make_broken(tmp_path, config={name: settings})

    assert f"config.json: {name} says that the weights are quantised (" in refusal(tmp_path)
    assert shown in refusal(tmp_path)


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()

    assert "shard model-00002-of-00002.safetensors is named by" in refusal(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"weight_map": 5}',
        b'{"weight_map": {"a": 5}}',
        b'{"weight_map": {"a": []}}',
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, index: bytes) -> None:
    make_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_bytes(index)

    assert "index" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd"])
def test_an_index_cannot_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    directory = make_checkpoint(tmp_path / "model")
    save_file({"x": torch.ones(1)}, tmp_path / "secret.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))

    assert "is not there" in refusal(directory)


class Explosive:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_a_pickle_is_never_read(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    write_config(tmp_path, make_config(Size()))
    (tmp_path / name).write_bytes(pickle.dumps(Explosive(mark)))

    assert "safetensors" in refusal(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "architectures names LlamaForCausalLM, supported are"),
        ({"architectures": None}, "architectures names none"),
        ({"architectures": "LlamaForCausalLM"}, "architectures names LlamaForCausalLM, supported are"),
        ({"d_model": "32"}, "d_model is '32', not a whole number"),
        ({"d_model": None}, "d_model is None, not a whole number"),
        ({"n_layers": True}, "n_layers is True"),
        ({"n_layers": 0}, "n_layers is 0, below 1"),
        ({"n_heads": 0}, "n_heads is 0, below 1"),
        ({"n_kv_heads": 0}, "n_kv_heads is 0, below 1"),
        ({"n_heads": 5}, "do not divide width 32"),
        ({"n_heads": 32, "n_kv_heads": 32}, "into heads of even width"),
        ({"n_kv_heads": 3}, "4 heads are no multiple of 3 KV heads"),
        ({"embedding_size": 63}, "63 embedding rows are fewer than the vocabulary of 64"),
        ({"mask_token_id": 64}, "mask_token_id 64 is outside the vocabulary of 64"),
        ({"eos_token_id": -1}, "eos_token_id -1 is outside"),
        ({"activation_type": "gelu"}, "activation_type 'gelu' is not supported, only 'silu'"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small', not a number"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_by_field(
    tmp_path: Path, config: dict[str, Any], problem: str
) -> None:
    assert problem in refusal(make_broken(tmp_path, config=config))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)

    assert "config.json: not" in refusal(tmp_path)


def test_dummy_weights_are_the_same_for_a_seed(tmp_path: Path) -> None:
    _, config = find_family(make_config(Size()))
    first, again, other = (dummy_model(config, CPU, torch.float32, seed) for seed in (1, 1, 2))

    assert all(torch.equal(tensor, again.weights[name]) for name, tensor in first.weights.items())
    assert not torch.equal(first.weights["qkv"], other.weights["qkv"])
    assert (first.weights["attention_norm"] == 1).all()


def test_remote_code_beside_the_weights_never_runs(tmp_path: Path) -> None:
    make_broken(tmp_path, config={"auto_map": {"AutoModel": "modeling.Model"}})
    (tmp_path / "modeling.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'mark')!r}).touch()")

    load(tmp_path)

    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("architecture", ["DiffusionGemmaForBlockDiffusion", "LlamaForCausalLM"])
def test_a_family_that_is_not_served_is_refused_with_those_that_are(
    tmp_path: Path, architecture: str
) -> None:
    make_broken(tmp_path, config={"architectures": [architecture], "model_type": "llada"})

    assert refusal(tmp_path) == (
        f"config.json: architectures names {architecture}, supported are DreamModel, "
        "Fast_dLLM_QwenForCausalLM, ILLaDAForCausalLM, LLaDA2MoeModelLM, LLaDAMoEModelLM, LLaDAModel, "
        "LLaDAModelLM, SDARForCausalLM, SDARMoeForCausalLM"
    )

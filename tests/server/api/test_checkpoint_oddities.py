"""Odd checkpoints as `dllm serve` meets them: a row each, refused with one line or served as expected."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import RealServer
from safetensors.torch import save_file
from scripted_engine import FIXTURE
from scripted_server import eventually

from tests.server.checkpoints import (
    EOS,
    MASK,
    Size,
    make_checkpoint,
    make_config,
    make_weights,
    write_config,
    write_shards,
    write_tokenizer,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4976698672\n"
POISON = 9

Change = Callable[[Path], object]


def config(**fields: Any) -> Change:
    return lambda at: write_config(at, make_config(Size()) | fields)


def file(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content

    def write(at: Path) -> None:
        (at / name).parent.mkdir(exist_ok=True)
        (at / name).write_bytes(data)

    return write


def weights(**replaced: torch.Tensor) -> Change:
    """Other weights, by names whose dots are underscores twice."""
    named = {name.replace("__", "."): tensor for name, tensor in replaced.items()}
    return lambda at: write_shards(at, make_weights(Size()) | named, 1)


def without(*names: str) -> Change:
    return lambda at: [(at / name).unlink() for name in names]


def shards_in(folder: str) -> Change:
    def move(at: Path) -> None:
        write_shards(at, make_weights(Size()), 2)
        (at / folder).mkdir()
        for path in at.glob("model-*"):
            path.rename(at / folder / path.name)
        index = at / "model.safetensors.index.json"
        index.write_text(index.read_text().replace("model-0", f"{folder}/model-0"))

    return move


def fixture(name: str) -> Change:
    return lambda at: shutil.copytree(FIXTURE.parent / name, at, dirs_exist_ok=True)


def both(*changes: Change) -> Change:
    return lambda at: [change(at) for change in changes]


def tokenizer(added: dict[str, int], **fields: Any) -> Change:
    return lambda at: write_tokenizer(at, added=added, **fields)


NAN = torch.ones(32)
NAN[5] = math.nan

REFUSED: dict[str, tuple[Change, str]] = {
    "no mask anywhere": (config(mask_token_id=None), "config.json: mask_token_id is missing"),
    "another family's mask text": (
        both(config(mask_token_id=None), tokenizer({"<|mask|>": 9})),
        "none of its added tokens is <|mdm_mask|>",
    ),
    "mask past the vocabulary": (config(mask_token_id=126336), "mask_token_id 126336 is outside"),
    "no EOS anywhere": (config(eos_token_id=None), "config.json: eos_token_id is missing"),
    "EOS of another model": (
        file("generation_config.json", '{"eos_token_id": [61, 126081]}'),
        "generation_config.json: eos_token_id 126081 is outside the vocabulary of 64",
    ),
    "another family under model_type llada": (
        config(architectures=["LLaDAVModelLM"], model_type="llada"),
        "architectures names LLaDAVModelLM, supported are",
    ),
    "a weight that nothing reads": (
        weights(model__transformer__blocks__0__q_norm__weight=torch.ones(8)),
        "weight model.transformer.blocks.0.q_norm.weight is not one of LLaDA's",
    ),
    "a vision tower": (weights(vision_tower__patch__weight=torch.ones(8)), "it belongs to images"),
    "NaN in a weight": (
        weights(model__transformer__ln_f__weight=NAN),
        "model.transformer.ln_f.weight holds a NaN or an infinity",
    ),
    "float8 without quantization_config": (
        weights(model__transformer__ln_f__weight=torch.ones(32).to(torch.float8_e4m3fn)),
        "ln_f.weight is float8_e4m3fn, only plain weights are read",
    ),
    "quantization_config": (
        config(quantization_config={"quant_method": "awq"}),
        "config.json: quantization_config says that the weights are quantised (awq)",
    ),
    "LFS pointer as weights": (file("model.safetensors", POINTER), "a Git LFS pointer, not the file itself"),
    "LFS pointer as tokenizer": (file("tokenizer.json", POINTER), "tokenizer.json: a Git LFS pointer"),
    "pickles only": (
        both(without("model.safetensors"), file("pytorch_model.bin", b"")),
        "pytorch_model.bin is a pickle, which can run code and is never read",
    ),
    "weights in a subfolder": (
        both(without("model.safetensors"), file("transformer/model.safetensors", b"")),
        "transformer/model.safetensors lies in a subfolder",
    ),
    "shards in a subfolder": (
        both(shards_in("shards"), without("model.safetensors")),
        "shards in other folders are not read",
    ),
    "an index that names a missing shard": (
        file("model.safetensors.index.json", '{"weight_map": {"a": "model-1.safetensors"}}'),
        "shard model-1.safetensors is named by",
    ),
    "a truncated shard": (file("model.safetensors", b"\x00" * 5), "truncated or not a safetensors file"),
}


@pytest.mark.sampled(0.2)
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_one_line_and_no_traceback(tmp_path: Path, name: str) -> None:
    change, words = REFUSED[name]
    change(make_checkpoint(tmp_path))

    command = [sys.executable, "-m", "dllm_server.cli", "serve", str(tmp_path), "--host", "127.0.0.1"]
    ended = subprocess.run(
        [*command, "--port", "0", "--device", "cpu"], capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    entry = json.loads(ended.stderr.splitlines()[-1])
    assert entry["event"] == "cannot start"
    assert words in entry["reason"]


SMALL = ("--block-length", "8", "--max-num-batched-tokens", "4096", "--kv-pool-bytes", "4MiB")
ASK: dict[str, Any] = {"max_tokens": 24, "diffusion": {"unmasking": {"strategy": "quota", "value": 1}}}


def test_every_eos_of_a_list_and_of_the_generation_config_ends_both_kinds_of_answers(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    write_tokenizer(tmp_path, added={"<|eot_id|>": 62}, chat_template="{{ messages[0].content }}")
    asked = ASK | {"return_token_ids": True}
    body = {"prompt": "t3 t5 t7"} | asked
    chat = {"messages": [{"role": "user", "content": "t3 t5 t7"}]} | asked
    with RealServer(*SMALL, model=str(tmp_path)) as server:
        tokens = server.complete(**body, ignore_eos=True)["choices"][0]["token_ids"]
    last = tokens[20]
    early = next(token for token in tokens[8:16] if token not in (last, *tokens[:8]))
    write_config(tmp_path, make_config(Size()) | {"eos_token_id": [EOS, last]})
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [early]}))

    with RealServer(*SMALL, model=str(tmp_path)) as server:
        completion = server.complete(**body)
        answer = server.http.post("/v1/chat/completions", json=chat).json()
        ignoring = server.complete(**body, ignore_eos=True)

    cut = min(tokens.index(early), tokens.index(last))
    for found in (completion, answer):
        assert found["choices"][0]["token_ids"] == tokens[:cut]
        assert found["choices"][0]["finish_reason"] == "stop"
        assert found["usage"]["completion_tokens"] == cut
    assert ignoring["choices"][0]["token_ids"] == tokens


def test_a_mask_that_only_the_tokenizer_knows_is_served_as_if_config_named_it(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    with RealServer(*SMALL, model=str(tmp_path)) as server:
        expected = server.complete(prompt=[3, 5], return_token_ids=True, **ASK)["choices"][0]["token_ids"]
    write_config(tmp_path, make_config(Size()) | {"mask_token_id": None})
    write_tokenizer(tmp_path, added={"<|mdm_mask|>": MASK})
    extra = {"rotary.inv_freq": torch.ones(4), "model.position_ids": torch.ones(4)}
    write_shards(tmp_path, make_weights(Size()) | extra, 1)

    with RealServer(*SMALL, model=str(tmp_path)) as server:
        found = server.complete(prompt=[3, 5], return_token_ids=True, **ASK)["choices"][0]["token_ids"]
        hole = server.http.post("/v1/completions", json={"prompt": [3, MASK], "max_tokens": 1})
        typed = server.http.post("/tokenize", json={"prompt": "t3 <|mdm_mask|>"}).json()["tokens"]

    assert found == expected
    assert (hole.status_code, hole.json()["error"]["param"]) == (400, "prompt.1")
    assert typed == [3, 0]


def test_a_context_longer_than_trained_is_cut_with_a_warning(tmp_path: Path) -> None:
    size = Size(family="dream", max_model_len=131_072)
    make_checkpoint(tmp_path, size)
    with RealServer(*SMALL, "--max-num-seqs", "2", model=str(tmp_path)) as server:
        refused = server.http.post("/v1/completions", json={"prompt": [3] * 2048, "max_tokens": 1})

        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 2048 tokens" in refused.json()["error"]["message"]
        assert any("but this model was trained on 2048: 2048 are served" in line for line in server.log)


def test_a_request_that_computes_no_numbers_is_a_500_and_the_others_are_answered(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    poisoned = make_weights(Size())
    poisoned["model.transformer.wte.weight"][POISON] = 1e30  # its square overflows
    poisoned["model.transformer.ff_out.weight"][POISON] = 0.0  # so that it is never chosen
    save_file(poisoned, tmp_path / "model.safetensors")
    with RealServer(*SMALL, model=str(tmp_path)) as server:
        broken = [
            server.http.post(
                "/v1/completions", json={"prompt": [3, POISON], "logprobs": 1, "stream": stream} | ASK
            )
            for stream in (False, True)
        ]
        good = server.complete(prompt=[3, 5], logprobs=1, **ASK)
        for _ in range(3):
            server.http.post("/v1/completions", json={"prompt": [POISON]} | ASK)

        assert (broken[0].status_code, broken[0].json()["error"]["code"]) == (500, "not_finite")
        assert '"code": "not_finite"' in broken[1].text
        assert not any(": NaN" in response.text for response in broken)  # as a value; the words say it
        assert all(math.isfinite(value) for value in good["choices"][0]["logprobs"]["token_logprobs"])
        eventually(lambda: server.metric("dllm_requests_not_finite_total") == 5, "every failure is counted")
        # The prompts are to blame: the server's own request finds the model sound.
        eventually(lambda: server.http.get("/ready").status_code == 200, "the server is ready again")
        assert server.http.get("/health").status_code == 200


def test_a_model_that_computes_no_numbers_at_all_makes_the_server_unready_and_says_why(
    tmp_path: Path,
) -> None:
    make_checkpoint(tmp_path)
    save_file(
        {name: torch.full_like(w, 1e38) for name, w in make_weights(Size()).items()},
        tmp_path / "model.safetensors",
    )
    with RealServer(*SMALL, model=str(tmp_path)) as server:
        assert server.http.get("/ready").status_code == 200
        statuses = [
            server.http.post("/v1/completions", json={"prompt": [3, index]} | ASK).status_code
            for index in range(3)
        ]

        assert statuses == [500] * 3
        eventually(lambda: server.http.get("/ready").status_code == 503, "the server is unready")
        assert server.http.get("/ready").json()["error"]["code"] == "not_finite"
        assert server.http.get("/health").status_code == 200
        eventually(lambda: server.metric("dllm_requests_not_finite_total") > 3, "a probe has failed too")
        assert server.metric("dllm_model_sound") == 0
        assert any("requests in a row came out as no numbers" in line for line in server.log)

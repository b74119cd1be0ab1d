import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from training import decode as decoding
from training import forward
from training.decode import Mode, decode
from training.forward import Layout, refresh, reuse, select
from training.model import MaskedDiffusionModel, ModelShape

FIXTURE = Path(__file__).parents[1] / "fixtures" / "llada_mha"
CASES = [
    case
    for case in json.loads((FIXTURE / "cases.json").read_text())["cases"]
    if case["strategy"] == "threshold" or case["value"] == 1
]


class UntiedModel(MaskedDiffusionModel):
    """The fixture has an output head of its own."""

    head: Tensor

    def logits(self, hidden: Tensor) -> Tensor:
        normed = F.rms_norm(
            hidden, (self.shape.d_model,), self.transformer.ln_f.weight, self.shape.rms_norm_eps
        )
        return F.linear(normed, self.head)


def make_fixture_model() -> tuple[UntiedModel, dict[str, Any]]:
    config = json.loads((FIXTURE / "config.json").read_text())
    weights = load_file(FIXTURE / "model.safetensors")
    model = UntiedModel(ModelShape(**{name: config[name] for name in ModelShape.__dataclass_fields__}))
    model.head = weights.pop("model.transformer.ff_out.weight")
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return model, config


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case['cache']}-{case['strategy']}-{case['forwards']}"
)
def test_decoding_gives_the_oracle_tokens_in_as_many_forwards(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, config = make_fixture_model()
    monkeypatch.setattr(forward, "BLOCK_TOKENS", case["block_length"])
    monkeypatch.setattr(decoding, "BLOCK_TOKENS", case["block_length"])
    threshold = case["value"] if case["strategy"] == "threshold" else None
    mode = Mode("case", retention=None if case["cache"] == "none" else 1.0, threshold=threshold)

    (decoded,) = decode(
        model,
        [case["prompt"]],
        case["max_tokens"],
        mode,
        mask_token_id=config["mask_token_id"],
        eos_token_id=config["eos_token_id"],
        dtype=torch.float32,
    )

    assert decoded.tokens == case["expected"][: len(decoded.tokens)]
    assert decoded.forwards == case["forwards"]


def test_a_reuse_that_keeps_everything_equals_the_refresh_before_it() -> None:
    torch.manual_seed(0)
    model = MaskedDiffusionModel(ModelShape(d_model=128, n_heads=2, n_layers=3))
    tokens = torch.randint(0, 300, (2, 96))
    layout = Layout.of(96, torch.tensor([0, 7]), torch.tensor([32, 64]))

    hidden, caches = refresh(model, tokens, layout, torch.float32)
    kept = select(caches, layout, torch.ones(2))
    again = reuse(model, tokens.gather(1, layout.block), layout, caches, kept, torch.float32)

    torch.testing.assert_close(again, hidden, rtol=1e-4, atol=1e-5)


def test_padding_on_the_left_changes_nothing() -> None:
    torch.manual_seed(0)
    model = MaskedDiffusionModel(ModelShape(d_model=128, n_heads=2, n_layers=3))
    prompts = [[5, 6, 7, 8, 9], list(range(40))]
    ids = {"mask_token_id": 1, "eos_token_id": 0}

    together = decode(model, prompts, 32, Mode("full"), dtype=torch.float32, **ids)
    alone = [decode(model, [prompt], 32, Mode("full"), dtype=torch.float32, **ids)[0] for prompt in prompts]

    assert together == alone

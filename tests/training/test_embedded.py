import json
from pathlib import Path

import dllm_server
import torch
from dllm_server.evaluation.tasks import Family, make_items
from safetensors.torch import load_file
from tokenizers import Tokenizer

from training.decode import Mode
from training.evaluate import Evaluator, Question
from training.model import MaskedDiffusionModel, ModelShape, config_json
from training.tokenizer import END_OF_TEXT, MASK, token_id

EMBEDDED = Path(dllm_server.__file__).parent / "models" / "embedded"
TOKENIZER = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))


def make_embedded_model() -> MaskedDiffusionModel:
    model = MaskedDiffusionModel(ModelShape())
    weights = {
        name: weight for shard in EMBEDDED.glob("*.safetensors") for name, weight in load_file(shard).items()
    }
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in weights.items()})
    return model


def test_the_weights_stay_within_their_size() -> None:
    sizes_bytes = [shard.stat().st_size for shard in EMBEDDED.glob("*.safetensors")]

    assert sum(sizes_bytes) <= 24_000_000
    assert max(sizes_bytes) <= 12_000_000


def test_the_index_names_every_weight() -> None:
    index = json.loads((EMBEDDED / "model.safetensors.index.json").read_text())
    stored = {name: shard.name for shard in EMBEDDED.glob("*.safetensors") for name in load_file(shard)}

    assert index["weight_map"] == stored


def test_the_shipped_config_is_the_one_the_code_writes() -> None:
    identifiers = {
        "mask_token_id": token_id(TOKENIZER, MASK),
        "eos_token_id": token_id(TOKENIZER, END_OF_TEXT),
    }

    assert json.loads((EMBEDDED / "config.json").read_text()) == config_json(ModelShape(), **identifiers)


def test_the_embedded_model_answers_held_out_questions() -> None:
    items = [item for family in (Family.SPELL_BACKWARD, Family.CHAIN_SUM) for item in make_items(family, 16)]
    questions = [Question(item.family, item.question, item.answer, item.max_tokens) for item in items]
    mode = Mode("dual", retention=1.0, threshold=0.9)

    decoded = Evaluator(TOKENIZER, torch.float32).answers(make_embedded_model(), questions, mode)

    right = sum(item.check(TOKENIZER.decode(d.tokens)) for item, d in zip(items, decoded, strict=True))
    assert right >= 30

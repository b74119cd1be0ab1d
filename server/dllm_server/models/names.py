"""What families call the fields of config.json and the weights in their safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dllm_server.models.config import Experts, ModelConfig
from dllm_server.models.transformer import Target


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """Names in config.json; the defaults are those of Llama and most who came after. Empty: no such field."""

    d_model: str = "hidden_size"
    n_layers: str = "num_hidden_layers"
    n_heads: str = "num_attention_heads"
    n_kv_heads: str = "num_key_value_heads"
    head_dim: str = "head_dim"
    turned_share: str = "partial_rotary_factor"
    mlp_width: str = "intermediate_size"
    max_model_len: str = "max_position_embeddings"
    is_tied: str = "tie_word_embeddings"
    embedding_rows: str = ""
    has_qkv_bias: str = ""
    has_head_norms: str = ""


@dataclass(frozen=True, slots=True)
class WeightNames:
    """Names in the safetensors; the defaults are Llama's, and Qwen3's where Llama has no such part.

    Those of a layer follow ``layer``, whose braces hold its number, and end in ``.weight`` or, for ``q``,
    ``k`` and ``v``, also in ``.bias``. ``qkv`` names the three in one tensor, where they are stored so.
    ``expert``, whose braces hold an expert's number, and ``shared_expert`` come before ``gate``, ``up`` and
    ``down`` without ``mlp``.
    """

    embedding: str = "model.embed_tokens.weight"
    final_norm: str = "model.norm.weight"
    lm_head: str = "lm_head.weight"
    layer: str = "model.layers.{}."
    qkv: str = ""
    q: str = "self_attn.q_proj"
    k: str = "self_attn.k_proj"
    v: str = "self_attn.v_proj"
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    attention_out: str = "self_attn.o_proj"
    mlp: str = "mlp."
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    router: str = "mlp.gate"
    router_bias: str = "mlp.gate.expert_bias"
    expert: str = "mlp.experts.{}."
    shared_expert: str = "mlp.shared_experts."
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"

    def targets(self, config: ModelConfig) -> dict[str, Target]:
        """Checkpoint name -> where it goes."""
        targets = {self.embedding: Target("embedding"), self.final_norm: Target("final_norm")}
        if not config.is_tied:
            targets[self.lm_head] = Target("lm_head")
        dense, experts = config.dense_layers, config.experts
        for layer in range(config.n_layers):
            found = dict(self._attention(config, layer))
            if experts is not None and layer not in dense:
                found |= self._routed(experts, experts.layers.index(layer))
            else:
                found |= self._mlp(self.mlp, "gate_up", "down", dense.index(layer))
            root = self.layer.format(layer)
            targets |= {root + name: target for name, target in found.items()}
        return targets

    def _attention(self, config: ModelConfig, layer: int) -> Iterator[tuple[str, Target]]:
        thirds = {"q": self.q, "k": self.k, "v": self.v}
        if self.qkv:
            yield f"{self.qkv}.weight", Target("qkv", layer=layer)
        else:
            for part, name in thirds.items():
                yield f"{name}.weight", Target("qkv", part, layer)
        if config.has_qkv_bias:
            for part, name in thirds.items():
                yield f"{name}.bias", Target("qkv_bias", part, layer)
        if config.has_head_norms:
            yield f"{self.q_norm}.weight", Target("q_norm", layer=layer)
            yield f"{self.k_norm}.weight", Target("k_norm", layer=layer)
        yield f"{self.attention_out}.weight", Target("attention_out", layer=layer)
        yield f"{self.attention_norm}.weight", Target("attention_norm", layer=layer)
        yield f"{self.mlp_norm}.weight", Target("mlp_norm", layer=layer)

    def _routed(self, experts: Experts, layer: int) -> dict[str, Target]:
        """``layer`` counts those that are routed."""
        found = {f"{self.router}.weight": Target("router", layer=layer)}
        if experts.has_bias:
            found[self.router_bias] = Target("router_bias", layer=layer)
        roots = [self.expert.format(number) for number in range(experts.count)]
        roots += [self.shared_expert] * experts.rule.shared
        for number, root in enumerate(roots):
            found |= self._mlp(root, "experts_gate_up", "experts_down", layer, number)
        return found

    def _mlp(self, root: str, gate_up: str, down: str, layer: int, expert: int = -1) -> dict[str, Target]:
        return {
            f"{root}{self.gate}.weight": Target(gate_up, "gate", layer, expert),
            f"{root}{self.up}.weight": Target(gate_up, "up", layer, expert),
            f"{root}{self.down}.weight": Target(down, "", layer, expert),
        }

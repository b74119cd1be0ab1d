"""Slow decoding loops that are plainly right: one request, one position, one head at a time, on plain torch.

Written from the papers and model cards, not from the engine: it shares no code with it but the file format.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

Cache = list[list[tuple[Tensor, Tensor]]]  # [layer][KV head] -> keys, values [kept, head_dim]


@dataclass
class Decoded:
    """``gap`` is the smallest difference that decided anything: where it is tiny, rounding may decide
    otherwise."""

    tokens: list[int] = field(default_factory=list)
    log_probabilities: list[Tensor] = field(default_factory=list)  # [vocabulary] at each token's step
    forwards: int = 0
    refreshes: int = 0
    gap: float = math.inf

    def close_call(self, difference: float) -> None:
        if difference > 0:
            self.gap = min(self.gap, difference)


@dataclass(frozen=True)
class Plan:
    """How to decode. ``interval`` None is the dual cache, 1 is no cache. The prompt is refreshed in the first
    step of every ``prompt_interval`` blocks; other refreshes reach ``reach`` masks further, or to the end."""

    block_length: int
    strategy: str = "quota"
    value: float = 1.0
    interval: int | None = None
    retention: float = 1.0
    stops: tuple[int, ...] = ()
    min_tokens: int = 0
    prompt_interval: int = 1
    reach: int | None = None


class OracleModel:
    """A checkpoint and its forward pass over chosen positions of one sequence, with or without cached K/V."""

    def __init__(self, directory: Path) -> None:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.is_dream = config["architectures"] == ["DreamModel"]
        self.weights: dict[str, Tensor] = {}
        for path in sorted(directory.glob("*.safetensors")):
            self.weights |= load_file(path)
        heads = "num_attention_heads" if self.is_dream else "n_heads"
        kv_heads = "num_key_value_heads" if self.is_dream else "n_kv_heads"
        self.heads, self.kv_heads = config[heads], config[kv_heads]
        self.layers = config["num_hidden_layers" if self.is_dream else "n_layers"]
        self.dim = config["hidden_size" if self.is_dream else "d_model"] // self.heads
        self.theta, self.eps = config["rope_theta"], config["rms_norm_eps"]
        self.mask = config["mask_token_id"]
        self.shift = 1 if self.is_dream else 0
        is_tied = config["tie_word_embeddings" if self.is_dream else "weight_tying"]
        embedding, head = (
            ("model.embed_tokens.weight", "lm_head.weight")
            if self.is_dream
            else ("model.transformer.wte.weight", "model.transformer.ff_out.weight")
        )
        self.embedding = self.weights[embedding]
        self.head = self.embedding if is_tied else self.weights[head]
        self.final_norm = self.weights[
            "model.norm.weight" if self.is_dream else "model.transformer.ln_f.weight"
        ]

    def forward(
        self, tokens: list[int], positions: list[int], cache: Cache | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
        """Logits ``[positions, vocabulary]``, and each layer's q, k, v after RoPE."""
        x = self.embedding[torch.tensor(tokens)]
        seen = []
        for layer in range(self.layers):
            normed = self._norm(x, self._weight(layer, "attn_norm", "input_layernorm"))
            q = self._rope(self._heads(layer, "q", normed, self.heads), positions)
            k = self._rope(self._heads(layer, "k", normed, self.kv_heads), positions)
            v = self._heads(layer, "v", normed, self.kv_heads)
            seen.append((q, k, v))
            x = (
                x
                + self._attend(layer, q, k, v, cache) @ self._weight(layer, "attn_out", "self_attn.o_proj").T
            )
            normed = self._norm(x, self._weight(layer, "ff_norm", "post_attention_layernorm"))
            gate = normed @ self._weight(layer, "ff_proj", "mlp.gate_proj").T
            up = normed @ self._weight(layer, "up_proj", "mlp.up_proj").T
            x = x + (gate * torch.sigmoid(gate) * up) @ self._weight(layer, "ff_out", "mlp.down_proj").T
        return self._norm(x, self.final_norm) @ self.head.T, seen

    def _weight(self, layer: int, llada: str, dream: str, kind: str = "weight") -> Tensor:
        root = (
            f"model.layers.{layer}.{dream}" if self.is_dream else f"model.transformer.blocks.{layer}.{llada}"
        )
        return self.weights[f"{root}.{kind}"]

    def _heads(self, layer: int, part: str, x: Tensor, heads: int) -> Tensor:
        name = f"{part}_proj"
        projected = x @ self._weight(layer, name, f"self_attn.{name}").T
        if self.is_dream:
            projected = projected + self._weight(layer, name, f"self_attn.{name}", "bias")
        return projected.view(len(x), heads, self.dim)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * weight

    def _rope(self, x: Tensor, positions: list[int]) -> Tensor:
        """Dimensions i and i + half are one complex number, turned by position * theta^(-2i / dim)."""
        half = self.dim // 2
        turn = self.theta ** (-torch.arange(half, dtype=torch.float64) * 2 / self.dim)
        angle = torch.outer(torch.tensor(positions, dtype=torch.float64), turn)
        spun = torch.complex(x[..., :half], x[..., half:]) * torch.exp(1j * angle)[:, None]
        return torch.cat((spun.real, spun.imag), dim=-1).float()

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, cache: Cache | None) -> Tensor:
        outputs = []
        for head in range(self.heads):
            kv = head // (self.heads // self.kv_heads)
            keys, values = k[:, kv], v[:, kv]
            if cache is not None:
                keys = torch.cat((cache[layer][kv][0], keys))
                values = torch.cat((cache[layer][kv][1], values))
            weights = torch.softmax(q[:, head] @ keys.T / math.sqrt(self.dim), dim=-1)
            outputs.append(weights @ values)
        return torch.cat(outputs, dim=1)


def decode(model: OracleModel, prompt: list[int], max_tokens: int, plan: Plan) -> Decoded:
    """Denoise block by block; tokens are cut before the first of the plan's stop tokens."""
    canvas = [*prompt, *[model.mask] * max_tokens]
    masked = [False] * len(prompt) + [True] * max_tokens
    result, seen_at = Decoded(), dict[int, Tensor]()
    start = len(prompt)
    fixed = len(prompt) - model.shift if plan.prompt_interval > 1 else 0  # positions a refresh may leave out
    known = Known()
    while start < len(canvas):
        end = min(start + plan.block_length, len(canvas))
        window = list(range(start - model.shift, end))
        steps, cache = 0, None
        while any(masked[start:end]):
            is_refresh = steps == 0 or (plan.interval is not None and steps % plan.interval == 0)
            result.refreshes += is_refresh
            if fixed:
                number = (start - len(prompt)) // plan.block_length
                last = len(canvas) if plan.reach is None else min(end + plan.reach, len(canvas))
                if is_refresh and steps == 0 and number % plan.prompt_interval == 0:
                    asked = list(range(len(canvas)))
                    logits, seen = model.forward(canvas, asked)
                    known.prompt = pack(
                        model,
                        seen,
                        [*range(window[0], len(canvas))],
                        [*range(fixed)],
                        fixed,
                        plan.retention,
                        result,
                    )
                else:
                    asked = list(range(fixed, last)) if is_refresh else window
                    logits, seen = model.forward([canvas[p] for p in asked], asked, known.cache(asked))
                known.learn(seen, [p for p in asked if p >= fixed], asked[0])
                first = asked[0]
            elif is_refresh:
                first = 0
                logits, seen = model.forward(canvas, list(range(len(canvas))))
                context = [p for p in range(len(canvas)) if p not in window]
                cache = pack(
                    model, seen, window, context, len(canvas) - (end - start), plan.retention, result
                )
            else:
                first = window[0]
                logits, _ = model.forward([canvas[p] for p in window], window, cache)
            rows = {p: logits[p - model.shift - first] for p in range(start, end) if masked[p]}
            for position, row in rows.items():
                is_early = position < len(prompt) + plan.min_tokens
                row[[model.mask, *(plan.stops if is_early else ())]] = -math.inf
            commit(rows, canvas, masked, plan, result)
            for position, row in rows.items():
                if not masked[position]:
                    seen_at[position] = row.double().log_softmax(0)
            result.forwards, steps = result.forwards + 1, steps + 1
            for position in range(start, end):
                if masked[position]:
                    break
                if canvas[position] in plan.stops:
                    return finish(result, canvas[len(prompt) : position], seen_at, len(prompt))
        start = end
    return finish(result, canvas[len(prompt) :], seen_at, len(prompt))


@dataclass
class Known:
    """K/V where the prompt is not always refreshed: what was kept of it, and the last of every position
    behind it, each layer's ``[KV heads, head_dim]``."""

    prompt: Cache = field(default_factory=list)
    others: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def learn(self, seen: list[tuple[Tensor, Tensor, Tensor]], positions: list[int], first: int) -> None:
        for position in positions:
            self.others[position] = [(k[position - first], v[position - first]) for _, k, v in seen]

    def cache(self, asked: list[int]) -> Cache:
        """All but those of the positions that are about to be computed."""
        others = [self.others[p] for p in sorted(self.others) if p not in asked]
        return [
            [
                (
                    torch.cat((keys, *[known[layer][0][None, head] for known in others])),
                    torch.cat((values, *[known[layer][1][None, head] for known in others])),
                )
                for head, (keys, values) in enumerate(heads)
            ]
            for layer, heads in enumerate(self.prompt)
        ]


def log_likelihoods(
    model: OracleModel, tokens: list[int], scored: list[int], masked_from: int
) -> dict[int, Tensor]:
    """Log probabilities ``[vocabulary]`` at each of ``scored``, all of these and what follows masked."""
    canvas = [
        model.mask if position in scored or position >= masked_from else token
        for position, token in enumerate(tokens)
    ]
    logits, _ = model.forward(canvas, list(range(len(canvas))))
    logits[:, model.mask] = -math.inf
    return {position: logits[position - model.shift].double().log_softmax(0) for position in scored}


def finish(result: Decoded, tokens: list[int], seen_at: dict[int, Tensor], start: int) -> Decoded:
    result.tokens = tokens
    result.log_probabilities = [seen_at[start + index] for index in range(len(tokens))]
    return result


def commit(
    rows: dict[int, Tensor],
    canvas: list[int],
    masked: list[bool],
    plan: Plan,
    result: Decoded,
) -> None:
    """Choose each masked position's best token and commit as many as the strategy says."""
    best, confidence, entropy = {}, {}, {}
    for position, row in rows.items():
        logits = row.double()
        probability = logits.softmax(0)
        top = logits.topk(2)
        result.close_call(float(top.values[0] - top.values[1]))
        best[position] = int(top.indices[0])
        confidence[position] = float(probability[top.indices[0]])
        entropy[position] = float(torch.special.entr(probability).sum())
    score = {
        "entropy_bound": {p: -h for p, h in entropy.items()},
        "sequential": {p: -float(p) for p in rows},
    }.get(plan.strategy, confidence)
    ranked = sorted(rows, key=lambda p: (-score[p], p))
    count = how_many([score[p] for p in ranked], plan, result)
    if count < len(ranked):
        result.close_call(score[ranked[count - 1]] - score[ranked[count]])
    for position in ranked[:count]:
        canvas[position], masked[position] = best[position], False


def how_many(scores: list[float], plan: Plan, result: Decoded) -> int:
    """Tokens to commit of masked positions with descending ``scores`` (negated entropies for the bound)."""
    if plan.strategy in ("quota", "sequential"):
        return min(int(plan.value), len(scores))
    count = 1
    if plan.strategy == "threshold":
        limits = [plan.value] * len(scores)
    elif plan.strategy == "factor":
        limits = [1 - plan.value / (n + 2) for n in range(len(scores))]
    else:
        spent = [sum(-s for s in scores[:n]) for n in range(len(scores))]
        for n, previous in enumerate(spent):
            result.close_call(abs(previous - plan.value))
            if previous <= plan.value:
                count = n + 1
        return count
    for n, (value, limit) in enumerate(zip(scores, limits, strict=True)):
        result.close_call(abs(value - limit))
        if value >= limit:
            count = max(count, n + 1)
    return count


def pack(
    model: OracleModel,
    seen: list[tuple[Tensor, Tensor, Tensor]],
    window: list[int],
    context: list[int],
    whole: int,
    retention: float,
    result: Decoded,
) -> Cache:
    """The K/V of ``context`` that each KV head keeps, a share of ``whole``: best by the window's mean query,
    pooled over 3 positions."""
    kept = min(len(context), max(1, math.floor(round(retention * whole, 9))))
    cache: Cache = []
    group = model.heads // model.kv_heads
    for q, k, v in seen:
        heads = []
        for kv in range(model.kv_heads):
            heads_of_group = range(kv * group, (kv + 1) * group)
            scores = [(k[:, kv] @ q[window, head].mean(0)).tolist() for head in heads_of_group]
            raw = {p: max(of_head[p] for of_head in scores) for p in context}
            pooled = {p: max(raw[n] for n in (p - 1, p, p + 1) if n in raw) for p in context}
            ranked = sorted(context, key=lambda p: (-pooled[p], p))
            if kept < len(context):
                result.close_call(pooled[ranked[kept - 1]] - pooled[ranked[kept]])
            chosen = ranked[:kept]
            heads.append((k[chosen, kv], v[chosen, kv]))
        cache.append(heads)
    return cache

"""Compiled kernels against float64, and at a model's shapes against float32, before anything is timed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from dllm_kernels.backend import Operations
from dllm_kernels.gpu import lm_head
from dllm_kernels.gpu.configurations import ConfigurationTable
from dllm_kernels.gpu.example_inputs import ModelShape, refresh_inputs, reuse_inputs
from dllm_kernels.gpu.operations import TritonOperations
from dllm_kernels.lm_head import Sampling
from dllm_kernels.rope import HeadNorms, apply_rope, rope_tables, split_heads
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Check:
    """``error`` is |result - reference| / |reference|, or a share of rows that differ."""

    name: str
    error: float
    limit: float

    @property
    def passes(self) -> bool:
        return self.error <= self.limit  # not so for NaN


def relative_error(result: Tensor, reference: Tensor) -> float:
    wide = reference.double()
    return float((result.double() - wide).norm() / wide.norm())


def check_all(shape: ModelShape, table: ConfigurationTable, length: int, rows: int) -> Iterator[Check]:
    """Every operation at ``shape`` with ``length`` tokens a request and ``rows`` rows of the LM head."""
    run = TritonOperations(table)
    limit = 1e-4 if shape.dtype == torch.float32 else 1e-2
    yield from _rows(shape, run, rows, limit)
    yield from _attention(shape, run, length, limit)
    yield from _selection(shape, run, length)
    yield from _lm_head(shape, table, rows)


def _rows(shape: ModelShape, run: Operations, rows: int, limit: float) -> Iterator[Check]:
    x, gain = shape.random(rows, shape.d_model), shape.random(shape.d_model)
    normed = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain.double()
    yield Check("rms_norm", relative_error(run.rms_norm(x, gain, 1e-5), normed), limit)
    gate_up = shape.random(rows, 2 * shape.mlp_width)
    gate, up = gate_up.double().chunk(2, dim=1)
    expected = gate * torch.sigmoid(gate) * up
    yield Check("silu_and_multiply", relative_error(run.silu_and_multiply(gate_up), expected), limit)
    yield from _linear(shape, run, x, limit)
    yield from _rope(shape, run, rows, shape.head_dim, limit, "rope_to_pages")
    q_gain, k_gain = (1 + 0.1 * shape.random(shape.head_dim) for _ in range(2))
    norms = HeadNorms(q_gain, k_gain, 1e-6)
    yield from _rope(shape, run, rows, shape.head_dim // 2, limit, "rope_to_pages with norms, in part", norms)


def _rope(
    shape: ModelShape,
    run: Operations,
    rows: int,
    rotary_dim: int,
    limit: float,
    name: str,
    norms: HeadNorms | None = None,
) -> Iterator[Check]:
    heads, kv_heads, dim = shape.heads, shape.kv_heads, shape.head_dim
    qkv = shape.random(rows, (heads + 2 * kv_heads) * dim)
    cos, sin = rope_tables(rows, rotary_dim, 500000.0, shape.device)
    keys, values = (shape.random(rows + 16, kv_heads, dim).fill_(torch.nan) for _ in range(2))
    slots = torch.arange(16, 16 + rows, device=shape.device)
    wide_q, wide_k, _ = split_heads(qkv.double(), heads, kv_heads)
    if norms is not None:
        wide_q, wide_k = (
            part / (part.square().mean(-1, keepdim=True) + norms.eps).sqrt() * gain.double()
            for part, gain in ((wide_q, norms.q), (wide_k, norms.k))
        )
    wide_q, wide_k = apply_rope(wide_q, cos, sin), apply_rope(wide_k, cos, sin)
    q, _, v = run.rope_to_pages(qkv, cos, sin, heads, kv_heads, keys, values, slots, norms)
    yield Check(f"{name}, queries", relative_error(q, wide_q), limit)
    yield Check(f"{name}, pages of keys", relative_error(keys[16:], wide_k), limit)
    yield Check(f"{name}, pages of values", relative_error(values[16:], v), 0.0)


def _linear(shape: ModelShape, run: Operations, x: Tensor, limit: float) -> Iterator[Check]:
    """All of ``x``'s rows, and as few as a reuse step of one request has."""
    weight = shape.random(shape.d_model, shape.d_model) / shape.d_model**0.5
    gate_up = shape.random(2 * shape.mlp_width, shape.d_model) / shape.d_model**0.5
    for rows in (len(x), min(len(x), 32)):
        some, name = x[:rows], f", {rows} rows"
        product = some.double() @ weight.double().T
        yield Check("linear" + name, relative_error(run.linear(some, weight), product), limit)
        gate, up = (some.double() @ gate_up.double().T).chunk(2, dim=1)
        found = run.gated_linear(some, gate_up)
        yield Check("gated_linear" + name, relative_error(found, gate * torch.sigmoid(gate) * up), limit)
        residual = shape.random(rows, shape.d_model)
        expected = residual.double() + product
        run.add_linear(some, weight, residual)
        yield Check("add_linear" + name, relative_error(residual, expected), limit)


def _attention(shape: ModelShape, run: Operations, length: int, limit: float) -> Iterator[Check]:
    refresh = refresh_inputs(shape, 2, length, 4, 4)
    out = refresh.out.fill_(torch.nan)
    run.varlen_attention(refresh.q, refresh.k, refresh.v, [refresh.spans], out)
    expected = [
        attend_float64(refresh.q[part], refresh.k[part], refresh.v[part])
        for part in (slice(0, length), slice(length, 2 * length))
    ]
    yield Check("varlen_attention", relative_error(out, torch.cat(expected)), limit)
    for requests in (1, 64 if shape.device.type == "cuda" else 2):
        reuse = reuse_inputs(shape, requests, min(32, length), length)
        out = reuse.out.fill_(torch.nan)
        run.paged_attention(reuse.q, reuse.k_pool, reuse.v_pool, [(reuse.spans, reuse.keys)], out)
        queries = reuse.q.view(requests, -1, *reuse.q.shape[1:])
        last = reuse.keys.slots[-1]
        expected_last = attend_float64(queries[-1], reuse.k_pool[last], reuse.v_pool[last])
        error = relative_error(out.view_as(queries)[-1], expected_last)
        yield Check(f"paged_attention, {requests} requests", error, limit)


def attend_float64(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One request: ``q`` [queries, heads, dim] over ``k, v`` [keys, kv_heads, dim]."""
    group = q.shape[1] // k.shape[1]
    keys, values = (part.double().repeat_interleave(group, dim=1) for part in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), keys) / math.sqrt(q.shape[2])
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values)


def _selection(shape: ModelShape, run: Operations, length: int) -> Iterator[Check]:
    """Against the float32 twin: the share of kept K/V that the twin does not keep; near ties may differ."""
    kept = length // 2
    inputs = refresh_inputs(shape, 2, length, min(32, length // 4), kept)
    results = []
    implementations: tuple[Operations, ...] = (run, Operations())
    for implementation in implementations:
        keys, values = (torch.full_like(inputs.k_pool, torch.nan) for _ in range(2))
        implementation.select_and_pack(inputs.q, inputs.k, inputs.v, [inputs.pack], keys, values)
        packed = values[16:].float().view(2, kept, shape.kv_heads, -1).sum(-1)
        results.append(packed.sort(dim=1).values)
    differs = ~torch.isclose(results[0], results[1], rtol=1e-3, atol=1e-3)
    yield Check("select_and_pack, kept values that differ", float(differs.float().mean()), 0.01)


def _lm_head(shape: ModelShape, table: ConfigurationTable, rows: int) -> Iterator[Check]:
    """Against float32 logits, which PyTorch multiplies without TF32 by default."""
    hidden, weight = shape.random(rows, shape.d_model), shape.random(shape.vocabulary, shape.d_model)
    hidden = (hidden * (8 / shape.d_model) ** 0.5).contiguous()
    banned = torch.tensor([shape.vocabulary // 2], device=shape.device)
    keys = torch.arange(rows, device=shape.device) * 7919
    ones = torch.ones(rows, device=shape.device)
    sampled = Sampling(ones * 0.7, keys)
    wide_hidden, wide_weight = hidden.float(), weight.float()
    for name, sampling in (("greedy", None), ("sampled", sampled)):
        expected = Operations().lm_head_choose(wide_hidden, wide_weight, banned, sampling, 256)
        for variant in lm_head.Variant:
            got = lm_head.lm_head_choose(table, hidden, weight, banned, sampling, 2048, variant=variant)
            same = got.token == expected.token
            label = f"lm_head {variant} {name}"
            differ = float((~same).float().mean())
            yield Check(f"{label}, tokens that differ", differ, 1.5 / rows)  # one near tie
            for part in ("probability", "margin", "entropy"):
                error = relative_error(getattr(got, part)[same], getattr(expected, part)[same])
                yield Check(f"{label}, {part}", error, 1e-3)

"""Projection to the vocabulary and choice of a token: which variant runs, by measurement."""

from __future__ import annotations

from enum import StrEnum

from torch import Tensor

from dllm_kernels.gpu.configurations import Configuration, ConfigurationTable, Key, bucket
from dllm_kernels.gpu.logits_chunk import chunk_and_choose
from dllm_kernels.gpu.projection import can_project, project_and_choose
from dllm_kernels.lm_head import Choice, Sampling

FEW_ROWS = 64  # below, the weight's read is the floor


class Variant(StrEnum):
    FUSED = "fused"
    CHUNKED = "chunked"


def kernel_of(variant: Variant, rows: int, *, is_sampled: bool) -> str:
    """The kernel whose configurations a variant uses."""
    if variant is Variant.CHUNKED:
        return "logits_chunk"
    name = "lm_head_few" if rows <= FEW_ROWS else "lm_head_many"
    return f"{name}_sampled" if is_sampled else name


def key_of(hidden: Tensor, weight: Tensor, *, is_sampled: bool) -> Key:
    way = "sampled" if is_sampled else "greedy"
    return bucket(hidden.shape[0]), *weight.shape, str(hidden.dtype).removeprefix("torch."), way


def choose_variant(hidden: Tensor, weight: Tensor, key: Key, table: ConfigurationTable) -> Variant:
    """The one ``warm_up`` measured to be faster for so many rows; without a measurement the chunked one."""
    measured = table.variant("lm_head", key)
    wanted = Variant(measured) if measured else Variant.CHUNKED
    return wanted if can_project(hidden, weight) else Variant.CHUNKED


def choose_with(
    variant: Variant,
    hidden: Tensor,
    weight: Tensor,
    banned: Tensor,
    sampling: Sampling | None,
    configuration: Configuration,
) -> Choice:
    """Run one variant."""
    run = project_and_choose if variant is Variant.FUSED else chunk_and_choose
    return run(hidden, weight, banned, sampling, configuration)


def lm_head_choose(
    table: ConfigurationTable,
    hidden: Tensor,
    weight: Tensor,
    banned: Tensor,
    sampling: Sampling | None,
    max_num_logits: int,
    *,
    variant: Variant | None = None,
) -> Choice:
    """Twin of ``dllm_kernels.lm_head.lm_head_choose``: same arguments, same result.

    No more than ``max_num_logits`` rows are worked on at a time, and their logits take at most
    ``logits_chunk.BUFFER_BYTES``.
    """
    choices = [Choice.of_no_rows(hidden.device)] if not hidden.shape[0] else []
    for start in range(0, hidden.shape[0], max_num_logits):
        end = min(start + max_num_logits, hidden.shape[0])
        part = hidden[start:end]
        key = key_of(part, weight, is_sampled=sampling is not None)
        chosen = variant or choose_variant(part, weight, key, table)
        kernel = kernel_of(chosen, end - start, is_sampled=sampling is not None)
        configuration = table.get(kernel, key)
        rows = None if sampling is None else sampling.rows(start, end)
        choices.append(choose_with(chosen, part, weight, banned, rows, configuration))
    return Choice.joined(choices)

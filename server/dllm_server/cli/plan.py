"""``dllm plan``: the budget as a table or JSON."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console
from rich.table import Table

from dllm_server.engine.accounts.device_memory import open_device_memory
from dllm_server.engine.process.startup import (
    context_warning,
    engine_limits,
    pick_device,
    pick_dtype,
    plan_for,
)
from dllm_server.memory import GIB, MIB, Budget
from dllm_server.models.registry import open_checkpoint
from dllm_server.models.source import model_name, resolve_model
from dllm_server.settings import Device, Dtype, EngineSettings


def run_plan(settings: EngineSettings, *, as_json: bool) -> None:
    """Plan for ``gpu_memory_limit`` bytes as a GPU would be (bfloat16), or for this machine when there is
    none."""
    is_hypothetical = settings.gpu_memory_limit is not None and settings.device is Device.AUTO
    if is_hypothetical and settings.gpu_memory_limit is not None:
        is_cpu, device_bytes = False, settings.gpu_memory_limit
        dtype_bytes = 4 if settings.dtype is Dtype.FLOAT32 else 2
    else:
        device = pick_device(settings.device)
        is_cpu, dtype_bytes = device.type == "cpu", pick_dtype(settings.dtype, device).itemsize
        device_bytes = open_device_memory(device, settings.gpu_memory_limit).total_bytes
    config = open_checkpoint(resolve_model(settings.model, settings.revision, has_weights=False)).config
    shape = config.shape(model_name(settings.model, settings.served_model_name), dtype_bytes)
    budget = plan_for(settings, shape, device_bytes, is_cpu=is_cpu)
    limits = engine_limits(settings, shape.longest_trained, shape.grid)
    warning = context_warning(shape, limits)
    if as_json:
        values = dataclasses.asdict(budget) | {
            "model": shape.name,
            "full_requests": budget.full_requests,
            "max_model_len": limits.max_model_len,
            "trained_len": shape.longest_trained,
        }
        click.echo(json.dumps(values, indent=2))
    else:
        Console().print(_table(shape.name, budget, limits.max_model_len))
    if warning is not None:
        click.echo(f"Warning: {warning}", err=True)


def _table(name: str, budget: Budget, max_model_len: int) -> Table:
    table = Table(title=f"{name} on {budget.device_bytes / GIB:.1f} GiB", caption_justify="left")
    table.add_column("owner")
    table.add_column("MiB", justify="right")
    table.add_column("share", justify="right")
    for owner, size in budget.owners().items():
        table.add_row(owner, f"{size / MIB:,.0f}", f"{size / budget.device_bytes:.1%}")
    unused = budget.device_bytes - budget.usable_bytes
    table.add_row("not used (utilization)", f"{unused / MIB:,.0f}", f"{unused / budget.device_bytes:.1%}")
    table.caption = (
        f"{budget.pages:,} pages of {budget.page_bytes / MIB:.2f} MiB; "
        f"KV {budget.kv_bytes_per_token / 1024:.1f} KiB a token; "
        f"activations {budget.activation_bytes_per_token / 1024:.0f} KiB a token; "
        f"logits {budget.logits_bytes_per_row / 1024:.0f} KiB a row; "
        f"{budget.full_requests} requests of the longest length, {max_model_len:,} tokens, at once"
    )
    return table

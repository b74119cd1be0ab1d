"""Kernels: how they are compiled and launched, and the facts every launch needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.runtime._async_compile import AsyncCompileMode

MOST_BLOCK_DIM = 128


def jit(function: Callable[..., Any]) -> Any:
    """Part of a kernel."""
    return triton.jit(function)


def kernel(*varying: str) -> Callable[[Callable[..., Any]], Any]:
    """Compiled once for all values of the arguments named ``varying``: row counts and the addresses of
    slices, which would otherwise recompile in the serving path when their divisibility changes."""

    def decorate(function: Callable[..., Any]) -> Kernel:
        return Kernel(triton.jit(function, do_not_specialize=list(varying)))

    return decorate


class Kernel:
    """Launched as ``kernel[grid](...)``; inside ``compile_only`` such a launch only compiles."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., object]:
        compiled = _compiled.get()
        if compiled is None:
            launch: Callable[..., object] = self._function[grid]
            return launch

        def compile_one(*arguments: Any, **options: Any) -> None:
            compiled.append(self._function.run(*arguments, grid=grid, warmup=True, **options))

        return compile_one


@contextmanager
def compile_only() -> Iterator[list[Any]]:
    """Inside, launches run nothing; each appends its compiled kernel to the list."""
    compiled: list[Any] = []
    token = _compiled.set(compiled)
    try:
        yield compiled
    finally:
        _compiled.reset(token)


@contextmanager
def compile_at_once(threads: int) -> Iterator[None]:
    """``compile_only`` on so many threads; all is compiled at the end. What does not compile says so when it
    is launched."""
    with (
        ThreadPoolExecutor(threads) as pool,
        AsyncCompileMode(pool, ignore_errors=True),
        compile_only(),
    ):
        yield


def is_compile_only() -> bool:
    return _compiled.get() is not None


_compiled: ContextVar[list[Any] | None] = ContextVar("compiled", default=None)


def block_dim(head_dim: int) -> int:
    """Power of two that holds a head, at least 16 (the least a matrix unit multiplies)."""
    if head_dim > MOST_BLOCK_DIM:
        raise ValueError(f"head_dim {head_dim} exceeds {MOST_BLOCK_DIM}: use the torch backend")
    return max(16, power_of_two(head_dim))


def power_of_two(value: int) -> int:
    """The least power of two that is at least ``value``."""
    return 1 << max(value - 1, 0).bit_length()


def dot_precision(tensor: Tensor) -> str:
    """float32 operands are multiplied in float32, not in TF32."""
    return "ieee" if tensor.element_size() == 4 else "tf32"


def require_last_contiguous(**tensors: Tensor) -> None:
    """Kernels read heads and rows as contiguous vectors; raises ``ValueError`` naming the tensor."""
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1:
            raise ValueError(f"the last dimension of {name} has stride {tensor.stride(-1)}: make it 1")


def cdiv(value: int, divisor: int) -> int:
    return -(-value // divisor)


@jit
def await_inputs(overlaps: tl.constexpr) -> None:
    """First in a kernel whose launch takes ``overlapping``: the next may be brought onto the device, and this
    one goes on once the one before has ended."""
    if overlaps:
        gdc_launch_dependents()
        gdc_wait()


def overlapping(tensor: Tensor) -> dict[str, Any]:
    """Keyword arguments of a launch that may begin while the kernel before still runs, where the device has
    programmatic dependent launch."""
    return (
        {"overlaps": True, "launch_pdl": True} if has_dependent_launch(tensor.device) else {"overlaps": False}
    )


@cache
def has_dependent_launch(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)

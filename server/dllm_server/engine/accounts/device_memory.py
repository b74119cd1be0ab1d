"""How much memory the device has, holds and held at most: CUDA's allocator, or the process and its cgroup on
a CPU."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Protocol

import psutil
import torch

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class DeviceMemory(Protocol):
    """Readings take no lock and wait for no device."""

    @property
    def total_bytes(self) -> int: ...

    @property
    def gives_back_at_once(self) -> bool:
        """Whether freed tensors leave ``used_bytes`` at once."""

    def used_bytes(self) -> int: ...

    def peak_bytes(self) -> int:
        """Most bytes held since the last ``reset_peak``."""

    def reset_peak(self) -> None: ...


class CpuMemory:
    """Resident memory of this process; the total is the machine's or the cgroup's, whichever is less."""

    gives_back_at_once = False  # the C library keeps freed memory

    def __init__(self, limit_bytes: int | None = None) -> None:
        totals = [psutil.virtual_memory().total, cgroup_limit_bytes(), limit_bytes]
        self.total_bytes = min(total for total in totals if total is not None)
        self._process = psutil.Process(os.getpid())
        # Open as long as this lives: these are read in every step, and opening takes longer than reading.
        self._status = _STATUS.open("rb", buffering=0)
        weakref.finalize(self, self._status.close)
        self._clear_refs = _open_for_writing(_CLEAR_REFS)
        if self._clear_refs is not None:
            weakref.finalize(self, self._clear_refs.close)

    def used_bytes(self) -> int:
        return int(self._process.memory_info().rss)

    def peak_bytes(self) -> int:
        text = os.pread(self._status.fileno(), 4096, 0)
        start = text.find(b"VmHWM:")
        return int(text[start:].split(None, 2)[1]) * 1024 if start >= 0 else self.used_bytes()

    def reset_peak(self) -> None:
        """A kernel without the reset keeps the peak of the process's life, which is never too low."""
        if self._clear_refs is not None:
            os.pwrite(self._clear_refs.fileno(), b"5", 0)


class CudaMemory:
    """PyTorch's allocator on one CUDA device; the total is the device's or the configured limit."""

    gives_back_at_once = True

    def __init__(self, device: torch.device, limit_bytes: int | None = None) -> None:
        self._device = device
        total = torch.cuda.get_device_properties(device).total_memory
        self.total_bytes = total if limit_bytes is None else min(total, limit_bytes)
        if limit_bytes is not None and limit_bytes < total:
            torch.cuda.set_per_process_memory_fraction(limit_bytes / total, device)

    def used_bytes(self) -> int:
        return self._allocated("current")

    def peak_bytes(self) -> int:
        return self._allocated("peak")

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)

    def _allocated(self, reading: str) -> int:
        # Two of the allocator's counts; max_memory_allocated would flatten all of them.
        nested = torch.cuda.memory_stats_as_nested_dict(self._device)
        return int(nested["allocated_bytes"]["all"][reading]) if nested else 0


def open_device_memory(device: torch.device, limit_bytes: int | None) -> DeviceMemory:
    return CudaMemory(device, limit_bytes) if device.type == "cuda" else CpuMemory(limit_bytes)


def _open_for_writing(path: Path) -> FileIO | None:
    try:
        return path.open("wb", buffering=0)
    except OSError:
        return None


def cgroup_limit_bytes(files: Iterable[Path] = _CGROUP_LIMITS) -> int | None:
    """The memory limit of this process's cgroup (version 2 or 1), if it has one."""
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a device or host allocator saying no."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)

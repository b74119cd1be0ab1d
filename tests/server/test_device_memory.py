import warnings
from pathlib import Path

import pytest
import torch
from dllm_server.engine.accounts.device_memory import cgroup_limit_bytes, open_device_memory


@pytest.mark.parametrize("version", ["memory.max", "memory.limit_in_bytes"])
def test_the_limit_of_either_cgroup_version_is_read(tmp_path: Path, version: str) -> None:
    file = tmp_path / version
    file.write_text("1073741824\n")

    assert cgroup_limit_bytes([tmp_path / "missing", file]) == 1024**3


def test_a_cgroup_without_a_limit_has_none(tmp_path: Path) -> None:
    file = tmp_path / "memory.max"
    file.write_text("max\n")

    assert cgroup_limit_bytes([file]) is None


def test_what_a_cpus_memory_is_read_from_is_closed_with_it() -> None:
    """Whoever had it, and however that ended: a file that is left open warns when it is lost."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        memory = open_device_memory(torch.device("cpu"), None)
        memory.reset_peak()
        assert memory.peak_bytes() > 0
        del memory

    assert said == []

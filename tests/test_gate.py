"""What `make test` makes of its parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import extend_first, is_wanted
from tests.gate import PARTS, outcome

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([1, 0], 1),
        ([0, 1], 1),
        ([4, 1], 4),
        ([0, 5], 0),
        ([5, 0], 0),
        ([5, 5], 5),
        ([1, 5], 1),
        ([-9, 0], -9),
        ([2], 2),
    ],
)
def test_every_parts_exit_code_counts_and_nothing_selected_only_where_all_are_so(
    codes: list[int], expected: int
) -> None:
    assert outcome(codes) == expected


def test_each_test_is_in_one_part() -> None:
    choices = [option for _, options in PARTS for option in options if option.startswith("--cluster-tests=")]

    assert sorted(choices) == ["--cluster-tests=none", "--cluster-tests=only"]
    for needs_cluster in (True, False):
        assert [is_wanted(needs_cluster, option.partition("=")[2]) for option in choices].count(True) == 1


def test_a_part_that_fails_fails_the_whole(tmp_path: Path) -> None:
    file = tmp_path / "test_one.py"
    file.write_text("def test_one():\n    assert False\n")
    plugins = [f"-p{name}" for name in ("xdist.plugin", "pytest_timeout", "tests.conftest")]

    result = subprocess.run(
        [sys.executable, "-m", "tests.gate", *plugins, "-n0", "-c", "pyproject.toml", str(file)],
        capture_output=True,
        text=True,
        timeout=480,
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )

    assert result.returncode == 1, result.stdout
    assert "1 failed" in result.stdout.partition("Tests without a cluster\n")[2]


@pytest.mark.timeout(700)
def test_the_wait_for_what_tests_share_comes_on_top_of_a_tests_own_time(
    request: pytest.FixtureRequest,
) -> None:
    extend_first([request.node], "request", 1800)
    extend_first([request.node], "request", 900)

    [longest] = request.node.get_closest_marker("timeout").args
    assert longest == 700 + 1800 + 900

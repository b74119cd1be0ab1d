from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dllm_server.engine.process.live_tuning import GrowthLimits, TuningWatch
from dllm_server.settings import LiveSettings, TuningFile

START = LiveSettings(max_num_batched_tokens=1000, max_num_seqs=8, max_num_logits=100)
LIMITS = GrowthLimits(START, max_seqs=8, spare_bytes=1000, token_bytes=10, row_bytes=20)


def make_watch(directory: Path, content: dict[str, Any] | str | None = None) -> TuningWatch:
    watch = TuningWatch(directory / "tuning.json", LIMITS)
    if content is not None:
        write(watch, content)
    return watch


def write(watch: TuningWatch, content: dict[str, Any] | str) -> None:
    watch.path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_file_that_is_not_there_yet_changes_nothing(tmp_path: Path) -> None:
    watch = make_watch(tmp_path)

    assert watch.poll() is None
    assert (watch.generation, watch.errors) == (0, 0)


def test_a_file_is_applied_once_and_its_generation_reported(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, {"generation": 4, "max_num_seqs": 2})

    assert watch.poll() == START.model_copy(update={"max_num_seqs": 2})
    assert watch.poll() is None
    assert (watch.generation, watch.errors) == (4, 0)


def test_what_a_later_file_leaves_out_goes_back_to_the_start(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, {"generation": 1, "max_num_seqs": 2})
    watch.poll()
    write(watch, {"generation": 2, "refresh_share": 0.1})

    assert watch.poll() == START.model_copy(update={"refresh_share": 0.1})


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "{",
        "[]",
        "null",
        {"max_num_seqs": 0},
        {"max_num_seqs": "many"},
        {"max_num_seqs": 9},
        {"refresh_share": 2},
        {"generation": -1},
        {"page_size": 3},
        {"max_num_batched_tokens": 1101},
        {"max_num_logits": 151},
        {"max_num_batched_tokens": 1060, "max_num_logits": 130},
    ],
)
def test_nonsense_is_refused_and_the_last_good_settings_stay(
    tmp_path: Path, nonsense: dict[str, Any] | str
) -> None:
    watch = make_watch(tmp_path, {"generation": 7, "max_num_seqs": 2})
    watch.poll()
    write(watch, nonsense)

    assert watch.poll() is None
    assert watch.poll() is None
    assert (watch.generation, watch.errors) == (7, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"max_num_batched_tokens": 1100},
        {"max_num_logits": 150},
        {"max_num_batched_tokens": 1050, "max_num_logits": 125},
        {"max_num_batched_tokens": 1, "max_num_logits": 150},
    ],
)
def test_tokens_and_logits_may_grow_into_the_spare_memory_together(
    tmp_path: Path, change: dict[str, int]
) -> None:
    assert make_watch(tmp_path, change).poll() == START.model_copy(update=change)


def test_a_good_file_after_a_bad_one_is_applied(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, "{")
    watch.poll()
    write(watch, {"generation": 1})

    assert watch.poll() == START
    assert (watch.generation, watch.errors) == (1, 1)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    watch = make_watch(tmp_path)
    watch.path.write_bytes(b"\xff\xfe\x00")

    assert watch.poll() is None
    assert watch.errors == 1


def test_a_right_checksum_is_applied_and_a_wrong_one_refused(tmp_path: Path) -> None:
    document = {"refresh_share": 0.25, "generation": 5, "max_num_seqs": 2}
    watch = make_watch(tmp_path, document | {"checksum": TuningFile.checksum_of(document)})

    assert watch.poll() == START.model_copy(update={"refresh_share": 0.25, "max_num_seqs": 2})

    write(watch, document | {"max_num_seqs": 3, "checksum": TuningFile.checksum_of(document)})

    assert watch.poll() is None
    assert (watch.generation, watch.errors, watch.is_refused) == (5, 1, True)


def test_a_directory_swapped_behind_a_link_is_seen(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "tuning.json").write_text(json.dumps({"generation": number}))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "tuning.json").symlink_to("..data/tuning.json")
    watch = make_watch(tmp_path)
    watch.poll()

    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")

    assert watch.poll() == START
    assert watch.generation == 2


def test_every_ceiling_is_accepted_and_one_more_refused() -> None:
    live = START.model_copy(update={"max_num_logits": 125})
    for name, most in LIMITS.ceilings(live).items():
        LIMITS.check(live.model_copy(update={name: most}))
        with pytest.raises(ValueError, match=name):
            LIMITS.check(live.model_copy(update={name: most + 1}))


def test_the_last_changes_are_kept_with_what_they_changed(tmp_path: Path) -> None:
    watch = make_watch(tmp_path, {"generation": 1, "max_num_seqs": 2})
    watch.unix_clock = lambda: 1000.0
    watch.poll()
    write(watch, {"generation": 2, "refresh_share": 0.1})
    watch.poll()
    write(watch, {"generation": 3, "max_num_seqs": 0})  # refused
    watch.poll()

    assert [(change.generation, change.settings) for change in watch.changes] == [
        (1, {"max_num_seqs": (8, 2)}),
        (2, {"max_num_seqs": (2, 8), "refresh_share": (0.5, 0.1)}),
    ]
    assert watch.changes[0].at_seconds == 1000.0

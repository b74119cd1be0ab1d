from __future__ import annotations

from dllm_operator.watching.watch_audit import WatchAudit


def audited(*looks: tuple[dict[str, int], dict[str, int]]) -> WatchAudit:
    """Comparisons of (listed, seen) 30 s apart, from 0 s on."""
    audit = WatchAudit()
    for number, (listed, seen) in enumerate(looks):
        audit.compare(listed, seen, now=30.0 * number)
    return audit


def test_a_view_that_has_every_version_has_no_lag() -> None:
    audit = audited(({"a": 5, "b": 7}, {"a": 5, "b": 7}))

    assert audit.stalled_seconds(1000.0) == 0.0
    assert audit.last_seconds == 0.0


def test_a_view_that_is_ahead_of_the_list_has_no_lag() -> None:
    assert audited(({"a": 5}, {"a": 6})).stalled_seconds(1000.0) == 0.0


def test_a_version_that_the_view_lacks_counts_from_when_it_was_noticed() -> None:
    audit = audited(({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 4}))

    assert audit.stalled_seconds(45.0) == 45.0


def test_an_object_that_the_view_never_saw_is_a_lag() -> None:
    assert audited(({"a": 5}, {}), ({"a": 5}, {})).stalled_seconds(60.0) == 60.0


def test_a_view_that_catches_up_is_well_again() -> None:
    assert audited(({"a": 5}, {"a": 4}), ({"a": 5}, {"a": 5})).stalled_seconds(1000.0) == 0.0


def test_an_object_that_changes_all_the_time_is_no_lag_while_the_view_follows() -> None:
    audit = audited(*(({"a": version}, {"a": version - 1}) for version in range(10, 30)))

    assert audit.stalled_seconds(19 * 30.0) == 0.0


def test_an_object_that_changes_all_the_time_is_a_lag_where_the_view_stands_still() -> None:
    audit = audited(*(({"a": version}, {"a": 9}) for version in range(10, 15)))

    assert audit.stalled_seconds(4 * 30.0) == 120.0


def test_a_deletion_that_the_view_does_not_know_is_a_lag_until_it_does() -> None:
    unseen = ({}, {"a": 5})

    assert audited(unseen, unseen).stalled_seconds(30.0) == 30.0
    assert audited(unseen, unseen, ({}, {})).stalled_seconds(1000.0) == 0.0


def test_an_object_made_between_the_list_and_the_look_at_the_view_is_no_lag() -> None:
    assert audited(({}, {"new": 9}), ({"new": 9}, {"new": 9})).stalled_seconds(60.0) == 0.0


def test_an_object_that_lagged_and_was_then_deleted_unseen_lags_from_the_start() -> None:
    assert audited(({"a": 5}, {"a": 4}), ({}, {"a": 4})).stalled_seconds(30.0) == 30.0


def test_the_oldest_lag_counts() -> None:
    audit = audited(({"a": 5, "b": 5}, {"a": 4, "b": 5}), ({"a": 5, "b": 6}, {"a": 4, "b": 5}))

    assert audit.stalled_seconds(40.0) == 40.0

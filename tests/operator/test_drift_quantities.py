from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from dllm_operator.cluster.observe import Manifest
from dllm_operator.writing.drift import has_drifted, with_hash
from hypothesis import given
from hypothesis import strategies as st


def make_manifest(value: Any) -> Manifest:
    return with_hash({"metadata": {"name": "chat"}, "spec": {"value": value}})


def drifts(wanted: Any, live: Any) -> bool:
    manifest = make_manifest(wanted)
    return has_drifted(manifest, manifest | {"spec": {"value": live}})


@pytest.mark.parametrize("odd", ["sNaN", "-sNaN123", "NaN", "Infinity", "nanm", "", "1e999999999", "Ki"])
@pytest.mark.parametrize("other", ["1", "sNaN1", "text"])
def test_a_text_that_is_an_odd_number_differs_from_every_other_and_is_no_error(odd: str, other: str) -> None:
    assert drifts(other, odd)
    assert not drifts(odd, odd)


texts = st.text("0123456789.+-eENaInfsmkKMGiTP ", max_size=8)


@given(texts, texts)
def test_any_two_texts_can_be_compared_and_equal_ones_never_drift(wanted: str, live: str) -> None:
    assert isinstance(drifts(wanted, live), bool)
    assert not drifts(wanted, wanted)


@given(
    st.integers(0, 10**6),
    st.sampled_from([("m", "0.001"), ("k", "1e3"), ("Ki", "1024"), ("Gi", "1073741824")]),
)
def test_a_suffix_is_its_factor_and_a_changed_number_is_seen(number: int, suffix: tuple[str, str]) -> None:
    spelling, factor = suffix
    plain = f"{Decimal(number) * Decimal(factor):f}"

    assert not drifts(f"{number}{spelling}", plain)
    assert drifts(f"{number}{spelling}", f"{number + 1}{spelling}")

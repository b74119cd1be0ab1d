from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
from dllm_kernels.backend import Backend, Operations, operations

from tests.kernels.implementations import needs_triton

NAMES = sorted(vars(operations()))


def parameters_of(operation: Callable[..., object]) -> list[tuple[str, object, object]]:
    """What a caller of any backend may pass; a twin may take more, by keyword and with a default."""
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(operation).parameters.values()
        if parameter.name != "variant"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_each_operation_says_in_one_place_what_it_does(name: str) -> None:
    operation = getattr(operations(), name)

    assert inspect.getdoc(operation)
    assert operation.__name__ == name
    assert ".gpu" not in operation.__module__


@needs_triton
@pytest.mark.parametrize("name", NAMES)
def test_each_operation_has_a_twin_of_the_same_signature(name: str) -> None:
    operation, twin = (getattr(operations(backend), name) for backend in (Backend.TORCH, Backend.TRITON))

    assert twin is not operation
    assert parameters_of(twin) == parameters_of(operation)


@needs_triton
def test_a_backend_is_one_table_with_nothing_but_operations() -> None:
    triton = operations(Backend.TRITON)

    assert isinstance(triton, Operations)
    assert triton.backend is Backend.TRITON
    assert sorted(set(vars(triton)) - {"table"}) == NAMES

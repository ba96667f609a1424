"""Fixtures that all tests share.

Without a GPU, Triton kernels run in its interpreter; that is decided when they are defined, so before any import.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def seed(record_property: pytest.FixtureRequest) -> int:
    """A fresh seed, or that of FASTDENS_TEST_SEED; printed with a failing test."""
    value = int(os.environ.get("FASTDENS_TEST_SEED", np.random.SeedSequence().entropy % 2**31))
    print(f"FASTDENS_TEST_SEED={value}")
    return value


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For tiny tensors, on which threads are in each other's way, and for work that must be done in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

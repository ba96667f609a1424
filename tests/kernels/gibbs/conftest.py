"""Fixtures of the sampler's tests."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """The reference computes with tiny tensors, for which threads are in each other's way."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)

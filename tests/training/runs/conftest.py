"""Fixtures of trained networks; one thread each, so that all processes give the same bits."""

from __future__ import annotations

import pytest
import torch

from tests.training.runs.folders import NAMES, names_in, some_images, train_all


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def images():
    return some_images()


@pytest.fixture(scope="package")
def whole(tmp_path_factory):
    """A folder that was filled without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "deep" / "runs"
    train_all(folder)
    assert names_in(folder) == [f"{name}.safetensors" for name in NAMES]
    return folder

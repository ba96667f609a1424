"""The package: what importing it loads, and what is missing without torchvision."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fastdens.training import build_network
from fastdens.training.datasets import load_images


def test_import_loads_no_optional_package():
    code = (
        "import sys, fastdens.training, fastdens.training.datasets, fastdens.training.runs\n"
        "print([name for name in ('torchvision', 'timm', 'sklearn', 'matplotlib', 'filelock') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_networks_and_data_sets_name_torchvision_when_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("torchvision.models", "torchvision.datasets", "torchvision.datasets.folder"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: build_network("resnet18", 2), lambda: load_images("CIFAR10", tmp_path, None, 0)):
        with pytest.raises(ImportError, match=r"needs torchvision, which is not installed: pip .*fastdens\[examples\]"):
            call()

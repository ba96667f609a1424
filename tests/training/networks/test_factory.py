"""Networks that a function of the user makes, in a file or in a module."""

from __future__ import annotations

import sys

import pytest
import torch

from fastdens.training import build_network, default_layers

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Sizes:
    hidden: int = 5

def make_network(n_classes):
    hidden = Sizes().hidden
    return nn.Sequential(nn.Flatten(), nn.Linear(48, hidden), nn.Linear(hidden, n_classes))

def make_nothing(n_classes):
    return n_classes

number = 3
"""


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SOURCE)
    return file


def test_a_network_of_a_file_of_ones_own(file):
    model = build_network(f"{file}:make_network", 7, allow_code=True)
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 7)
    with pytest.raises(ValueError, match="'make_network'"):
        build_network(f"{file}:make_netwrok", 7, allow_code=True)
    with pytest.raises(ValueError, match="has no function 'number'"):
        build_network(f"{file}:number", 7, allow_code=True)
    with pytest.raises(ValueError, match=r"make_nothing of .*mine\.py returned int, not an nn\.Module"):
        build_network(f"{file}:make_nothing", 7, allow_code=True)
    with pytest.raises(FileNotFoundError, match=r"other\.py"):
        build_network(f"{file.with_name('other.py')}:make_network", 7, allow_code=True)
    with pytest.raises(ValueError, match="pass layers"):
        default_layers(model)


def test_a_network_of_a_module(file, monkeypatch):
    monkeypatch.syspath_prepend(file.parent)
    assert build_network("mine:make_network", 7, allow_code=True)[2].out_features == 7
    with pytest.raises(ModuleNotFoundError, match="yours"):
        build_network("yours:make_network", 7, allow_code=True)


def test_code_runs_only_where_it_is_allowed(file, monkeypatch):
    file.write_text("raise SystemError('run')")
    monkeypatch.syspath_prepend(file.parent)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    build_network("resnet18", 3, width=8, allow_code=True)
    for name in (f"{file}:make_network", "mine:make_network"):
        with pytest.raises(ValueError, match="is Python code, which runs with all that you may do: pass allow_code"):
            build_network(name, 3)
        assert "mine" not in sys.modules
        with pytest.raises(SystemError):
            build_network(name, 3, allow_code=True)

"""Names of layers become names of files, in their folder and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastdens.activations import extract, load

NAMES = (
    "/absolute",
    "a/b",
    "C:\\x",
    "nul\x00byte",
    "Conv",
    "conv",
    "ünï",
    "u\u0308",
    "50%2F",
    " ",
    "~",
    "a:b",
    "?*|<>\"'",
)


@pytest.mark.parametrize("place", ["deep/er/folder", "deep/er/file.safetensors"])
def test_layers_of_any_name_are_files_of_their_folder(tmp_path, place):
    model = nn.Sequential()
    for name in NAMES:
        model.add_module(name, nn.Linear(3, 3))
    expected = extract(model, [torch.randn(5, 3)], NAMES, progress=False)
    path = tmp_path / place
    torch.manual_seed(0)
    found = extract(model, [torch.randn(5, 3)], NAMES, path=path, progress=False)
    assert found.layers == load(path).layers == expected.layers == NAMES
    torch.manual_seed(0)
    again = extract(model, [torch.randn(5, 3)], NAMES, progress=False)
    assert all(torch.equal(load(path).features[name], again.features[name]) for name in NAMES)
    outside = [file for file in tmp_path.rglob("*") if file.is_file() and file != path and path not in file.parents]
    assert not outside and not any(file.is_dir() for file in path.rglob("*"))

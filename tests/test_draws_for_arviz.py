"""Draws as ArviZ reads them, for the installed version and for the signature of version 1."""

from __future__ import annotations

import sys
import types

import arviz
import numpy as np
import pytest
import torch
import xarray

from fastdens.convergence import effective_sample_size
from fastdens.draws_for_arviz import to_arviz


def from_dict_of_arviz_1(data, *, coords=None, dims=None):
    """The part of the signature and behaviour of ``arviz.from_dict`` 1.x that counts here."""
    groups = {}
    for group, variables in data.items():
        arrays = {name: (["chain", "draw", *dims[name]], values) for name, values in variables.items()}
        n_chains, n_draws = next(iter(variables.values())).shape[:2]
        groups[group] = xarray.Dataset(arrays, {"chain": range(n_chains), "draw": range(n_draws), **coords})
    return xarray.DataTree.from_dict(groups)


@pytest.mark.parametrize("version", ["installed", "1.3.0"])
def test_arviz_gets_chain_draw_and_model(rng, monkeypatch, version):
    if version != "installed":
        module = types.SimpleNamespace(__version__=version, from_dict=from_dict_of_arviz_1)
        monkeypatch.setitem(sys.modules, "arviz", module)
    alpha = torch.from_numpy(rng.gamma(1, size=(3, 2, 5)))
    n_components = torch.from_numpy(rng.integers(1, 9, (3, 2, 5)))
    found = to_arviz({"alpha": alpha, "n_components": n_components}, ["class 0", "class 1", "class 7"])
    if version != "installed":
        assert isinstance(found, xarray.DataTree)
    posterior = found["posterior"]
    assert set(posterior.data_vars) == {"alpha", "n_components"}
    assert posterior["alpha"].dims == ("chain", "draw", "model")
    assert posterior["model"].values.tolist() == ["class 0", "class 1", "class 7"]
    np.testing.assert_array_equal(posterior["alpha"].sel(model="class 7").values, alpha[2])
    np.testing.assert_array_equal(posterior["n_components"].sel(chain=1, draw=3).values, n_components[:, 1, 3])
    assert posterior["n_components"].dtype == np.int64
    if version == "installed":
        np.testing.assert_allclose(arviz.ess(found, method="mean")["alpha"], effective_sample_size(alpha), rtol=1e-6)


def test_arviz_is_named_if_it_is_missing_and_shapes_if_they_are_wrong(monkeypatch):
    draws = torch.ones(3, 2, 5)
    with pytest.raises(ValueError, match=r"'alpha' have shape \(3, 2, 5\).*2 model names"):
        to_arviz({"alpha": draws}, ["a", "b"])
    with pytest.raises(ValueError, match=r"'b' have shape \(3, 2, 4\), those of 'alpha' \(3, 2, 5\)"):
        to_arviz({"alpha": draws, "b": draws[..., :4]}, ["a", "b", "c"])
    with pytest.raises(ValueError, match="'alpha' have shape"):
        to_arviz({"alpha": draws[0]}, ["a", "b"])
    with pytest.raises(ValueError, match="draws is empty"):
        to_arviz({}, ["a"])
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"fastdens\[diagnostics\]"):
        to_arviz({"alpha": draws}, ["a", "b", "c"])

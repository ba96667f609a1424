"""Saved analyses come back bit for bit; damaged and foreign files are one sentence."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastdens.convergence import chain_convergence
from fastdens.pipeline import Analysis
from fastdens.pipeline.options import DefinitionOptions
from fastdens.pipeline.saving import load_tree, save_tree
from fastdens.report import metrics_of
from tests.report.analysis_problem import analysis_problem


class Pair(NamedTuple):
    value: NDArray[np.float64]
    known: bool


T = TypeVar("T")


class Generically(NamedTuple, Generic[T]):
    value: T
    low: T


@dataclass(frozen=True)
class Leaf:
    name: str
    number: float
    count: int
    known: bool = True
    optional: float | None = None
    array: NDArray[Any] | None = None


@dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    lists: Mapping[str, tuple[Pair, ...]]
    pair: Pair
    settings: Mapping[str, Any]
    numbers: Generically[float]
    arrays: Generically[NDArray[np.float64]]
    optional_pair: Pair | None = None


def assert_same(found, expected):
    """Equal types, values and bits, all the way down."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray) and found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == np.ascontiguousarray(expected).tobytes()
    elif is_dataclass(expected):
        assert type(found) is type(expected)
        for own in fields(expected):
            assert_same(getattr(found, own.name), getattr(expected, own.name))
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected)
        for name in expected:
            assert_same(found[name], expected[name])
    elif isinstance(expected, tuple):
        assert type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float) and math.isnan(expected):
        assert isinstance(found, float) and math.isnan(found)
    else:
        assert found == expected and isinstance(
            found, type(expected) if not isinstance(expected, np.generic) else object
        )


def tree_of(rng):
    odd = np.array([math.nan, -0.0, math.inf, -math.inf, 5e-324, *rng.normal(size=3)])
    leaf = Leaf("ä/ b", math.nan, 3, False, 0.1 + 0.2, odd)
    # A name with a slash and parts of that name, arrays without elements or axes, and views.
    return Tree(
        leaves=(leaf, Leaf("", -math.inf, -1), Leaf("f", 1e-300, 2**60, True, None, rng.integers(9, size=(0, 3)))),
        by_name={"a/b": leaf, "a": Leaf("a", 0.0, 0, array=rng.random((3, 4)).T), "array": leaf, "type": leaf},
        lists={"one": (Pair(odd[::2], True), Pair(rng.random(()), False)), "none": ()},
        pair=Pair(rng.normal(size=(2, 2)).astype(np.float32), False),
        settings={"flip": 0.1, "layers": ("a", "b"), "weights": None, "augment": True, "seed": 3, "nan": math.nan},
        numbers=Generically(0.5, math.nan),
        arrays=Generically(odd, odd[:0]),
    )


def test_a_tree_comes_back_bit_for_bit(rng, tmp_path):
    tree = tree_of(rng)
    save_tree(tree, tmp_path / "saved", overwrite=False)
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {"analysis.json", "arrays.safetensors"}
    json.loads((tmp_path / "saved" / "analysis.json").read_text(), parse_constant=pytest.fail)
    assert_same(load_tree(Tree, tmp_path / "saved"), tree)


def test_arrays_may_be_bools_and_integers_of_any_size(rng, tmp_path):
    for dtype in (np.bool_, np.int8, np.int32, np.int64, np.float32):
        leaf = Leaf("a", 1.0, 1, array=(rng.random(5) * 9).astype(dtype))
        save_tree(leaf, tmp_path / "saved", overwrite=True)
        assert_same(load_tree(Leaf, tmp_path / "saved"), leaf)


def test_a_folder_is_replaced_on_request_only(rng, tmp_path):
    save_tree(tree_of(rng), tmp_path / "saved", overwrite=False)
    other = tree_of(rng)
    with pytest.raises(FileExistsError):
        save_tree(other, tmp_path / "saved", overwrite=False)
    save_tree(other, tmp_path / "saved", overwrite=True)
    assert_same(load_tree(Tree, tmp_path / "saved"), other)


def test_what_cannot_be_saved_is_named_and_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="optional is set"):
        save_tree(Leaf("a", 1.0, 1, optional={1}), tmp_path / "saved", overwrite=False)
    with pytest.raises(TypeError, match="optional has the key 3"):
        save_tree(Leaf("a", 1.0, 1, optional={3: 1}), tmp_path / "saved", overwrite=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(rng, tmp_path):
    save_tree(tree_of(rng), tmp_path / "saved", overwrite=False)
    return tmp_path / "saved"


def error_of(cls, folder, kind=ValueError):
    with pytest.raises(kind) as error:
        load_tree(cls, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_damage_is_one_sentence(saved):
    file, arrays = saved / "analysis.json", saved / "arrays.safetensors"
    text, content = file.read_text(), arrays.read_bytes()
    file.write_text(text[: len(text) // 2])
    assert "analysis.json is damaged" in error_of(Tree, saved)
    file.write_bytes(b"\xff\xfe" + text.encode())
    assert "analysis.json is damaged" in error_of(Tree, saved)
    file.write_text(text.replace("0.1", "0.2"))
    assert "not what was saved with arrays.safetensors" in error_of(Tree, saved)
    file.write_text(text)
    arrays.write_bytes(content[:-3])
    assert "arrays.safetensors is damaged" in error_of(Tree, saved)
    arrays.unlink()
    assert "arrays.safetensors" in error_of(Tree, saved, FileNotFoundError)


def test_foreign_files_are_one_sentence(saved, rng, tmp_path):
    assert "has no analysis.json" in error_of(Tree, tmp_path / "nowhere", FileNotFoundError)
    assert "it is a Tree, not a Leaf" in error_of(Leaf, saved)
    (saved / "analysis.json").write_text("[1, 2]")
    assert "not of a saved analysis" in error_of(Tree, saved)
    # Arrays of another analysis.
    save_tree(tree_of(rng), tmp_path / "other", overwrite=False)
    (tmp_path / "other" / "arrays.safetensors").replace(saved / "arrays.safetensors")
    (tmp_path / "other" / "analysis.json").replace(tmp_path / "analysis.json")
    save_tree(tree_of(rng), tmp_path / "other", overwrite=True)
    (tmp_path / "analysis.json").replace(tmp_path / "other" / "analysis.json")
    assert "not what was saved" in error_of(Tree, tmp_path / "other")


def test_a_newer_version_asks_to_upgrade(saved):
    file = saved / "analysis.json"
    file.write_text(re.sub(r'"format": \d+', '"format": 99', file.read_text(), count=1))
    assert "format version 99" in error_of(Tree, saved) and "upgrade fastdens" in error_of(Tree, saved)


def earlier(value, name, without, **changed):
    """A dataclass of that name with the fields that it had before."""
    values = {own.name: getattr(value, own.name) for own in fields(value) if own.name not in without} | changed
    return make_dataclass(name, list(values))(**values)


@pytest.mark.parametrize("density", ["dp", "gmm"])
def test_an_analysis_that_was_saved_before_there_were_moves_is_filled_in(rng, tmp_path, monkeypatch, density):
    analysis = analysis_problem(rng, density=density)
    sweeps = np.array([68, 72, 76, 80])
    new = ("n_sweeps", "agree", "max_rhat", "min_effective_sample_size", "split_merge")
    layers = [
        replace(layer, chains=layer.chains and earlier(layer.chains, "Chains", new, limit=1.3, sweeps=sweeps))
        for layer in analysis.layers
    ]
    options = earlier(analysis.options, "AnalysisOptions", ("init", "split_merge", "search", "stop", "max_sweeps"))
    monkeypatch.setattr("fastdens.pipeline.saving.FORMAT_VERSION", 1)
    replace(analysis, options=options, layers=tuple(layers)).save(tmp_path / "saved")
    monkeypatch.undo()
    loaded = Analysis.load(tmp_path / "saved")
    started = {"init": "random", "split_merge": 0.0, "search": 0.0} if density == "dp" else {}
    assert loaded.options == replace(analysis.options, **started)
    for own, layer in zip(loaded.layers, analysis.layers, strict=True):
        if density == "gmm":
            assert own.chains is None
            continue
        chains, draws = own.chains, torch.from_numpy(layer.chains.log_joint)
        np.testing.assert_array_equal(chains.log_joint, layer.chains.log_joint)
        assert chains.sweeps.tolist() == [sweeps.tolist()] * 5 and chains.n_sweeps.tolist() == [80] * 5
        np.testing.assert_array_equal(chains.rhat, chain_convergence({"log-joint": draws}, 1.3, 0).rhat.numpy())
        np.testing.assert_array_equal(chains.agree, chains.rhat <= 1.3)
        assert (chains.max_rhat, chains.min_effective_sample_size) == (1.3, 0)
        assert chains.split_merge.shape == (5, 2, 4) and not chains.split_merge.any()
    assert_same(loaded.memorization, analysis.memorization)
    assert "layer1.components.rhat_max" in metrics_of(loaded) or density == "gmm"


def test_one_group_and_one_group_of_an_earlier_analysis_have_no_agreement(rng, tmp_path, monkeypatch):
    analysis = analysis_problem(rng, layer_names=("a", "b", "c"))
    of_layers = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1.0]])
    # At a and c the first network has one group, and the second has two; at b the third has one.
    one_group = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 1.0]])
    of_seeds = np.stack([one_group, np.array([[1, 0.3, 0], [0.3, 1, 0], [0, 0, 1]]), one_group])
    monkeypatch.setattr("fastdens.pipeline.saving.FORMAT_VERSION", 2)
    replace(analysis, layer_agreement=of_layers, seed_agreement=of_seeds).save(tmp_path / "saved")
    monkeypatch.undo()
    loaded, nan = Analysis.load(tmp_path / "saved"), np.nan
    without = np.array([[nan, 0, nan], [0, 1, 0], [nan, 0, nan]])
    np.testing.assert_array_equal(loaded.layer_agreement, without)
    np.testing.assert_array_equal(loaded.seed_agreement[[0, 2]], [without, without])
    np.testing.assert_array_equal(loaded.seed_agreement[1], [[1, 0.3, 0], [0.3, 1, 0], [0, 0, nan]])


def test_an_analysis_that_was_saved_before_there_was_a_choice_of_definitions_has_the_exact_ones(rng, tmp_path):
    analysis = analysis_problem(rng)
    layers = [earlier(layer, "LayerAnalysis", ("in_sample", "left_out")) for layer in analysis.layers]
    subsets = earlier(analysis.memorization.subsets, "S", ("n_classes", "label_scores", "f1_of_draws"))
    options = earlier(analysis.options, "AnalysisOptions", [own.name for own in fields(DefinitionOptions)])
    memorization = replace(analysis.memorization, subsets=subsets)
    replace(analysis, options=options, layers=tuple(layers), memorization=memorization).save(tmp_path / "saved")
    loaded = Analysis.load(tmp_path / "saved")
    assert_same(loaded.options, analysis.options)
    assert_same(loaded.memorization, analysis.memorization)
    assert_same(loaded.layers, tuple(replace(layer, in_sample=None, left_out=None) for layer in analysis.layers))


def test_an_analysis_comes_back_whole(rng, tmp_path):
    analysis = analysis_problem(rng, published=bool(rng.integers(2)))
    analysis.save(tmp_path / "saved")
    assert_same(Analysis.load(tmp_path / "saved"), analysis)


def test_an_analysis_without_options_of_today_is_one_sentence(saved):
    with pytest.raises(ValueError, match="it is a Tree, not a Analysis"):
        Analysis.load(saved)

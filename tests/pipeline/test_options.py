"""Options: their ranges, what excludes what, and the presets."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields

import pytest

from fastdens import DirichletProcessMixtures
from fastdens.pipeline.experiment_options import ImageOptions, NetworkOptions
from fastdens.pipeline.options import (
    AnalysisOptions,
    DefinitionOptions,
    MachineOptions,
    OptionError,
    ScoreThresholds,
    check_density_options,
    resolve_device,
)
from fastdens.pipeline.presets import GPU_PRESETS, PRESETS, preset
from fastdens.pipeline.protocols import PROTOCOLS


@pytest.mark.parametrize(
    ("cls", "option", "value", "message"),
    [
        (AnalysisOptions, "chains", 0, "chains is 0, but it must be at least 1."),
        (AnalysisOptions, "entropy_draws", 1, "entropy_draws is 1, but it must be at least 2."),
        (AnalysisOptions, "dimensions", (4, 0), "dimensions is 0, but it must be at least 1."),
        (AnalysisOptions, "sigma", 0.0, "sigma is 0.0, but it must be more than 0."),
        (AnalysisOptions, "epsilon", math.inf, "epsilon is inf, but it must be less than inf."),
        (AnalysisOptions, "search", 1.5, "search is 1.5, but it must be at most 1."),
        (AnalysisOptions, "split_merge", -1.0, "split_merge is -1.0, but it must be at least 0."),
        (AnalysisOptions, "max_sweeps", 0, "max_sweeps is 0, but it must be at least 1."),
        (AnalysisOptions, "memorization_share", 1.0, "memorization_share is 1.0, but it must be less than 1."),
        (AnalysisOptions, "sigma", math.nan, "sigma is nan, but it must be more than 0."),
        (AnalysisOptions, "certified_examples", 0, "certified_examples is 0, but it must be at least 1."),
        (AnalysisOptions, "kl_examples", 0, "kl_examples is 0, but it must be at least 1."),
        (MachineOptions, "seed", -1, "seed is -1, but it must be at least 0."),
        (ImageOptions, "flip", -0.1, "flip is -0.1, but it must be at least 0."),
        (NetworkOptions, "width", 0, "width is 0, but it must be at least 1."),
    ],
)
def test_an_option_out_of_range_is_named(cls, option, value, message):
    with pytest.raises(OptionError) as error:
        cls(**{option: value})
    assert str(error.value) == message and error.value.options == (option,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 3}, "components is for density gmm, but the density is dp"),
        ({"density": "gmm", "sweeps": 90}, "sweeps is for density dp, but the density is gmm"),
        ({"sweeps": 75}, "sweeps is 75, but R-hat needs 4 draws .* raise it to 80, or lower thin"),
        ({"density": "gmm", "init": "random"}, "init is for density dp, but the density is gmm"),
        ({"max_sweeps": 900}, "max_sweeps is 900, but chains make 400 sweeps if stop is sweeps: choose stop converged"),
        ({"init": "kmean"}, r"init is 'kmean', but it must be one of .* \(did you mean 'kmeans'\?\)"),
        ({"stop": "never"}, "stop is 'never', but it must be one of 'sweeps', 'converged'"),
        ({"kl_low": 0.7}, "kl_low is 0.7 and kl_high 0.7, but the least memorized examples have lower scores"),
        (
            {"kl_high": 0.8},
            "kl_high is 0.8, but it has no effect unless kl_subsets is threshold: choose that, or leave",
        ),
        ({"label_examples": 9, "kl_subsets": "threshold"}, "label_examples is 9, .* unless label_subsets is global"),
        ({"certified_examples": "every"}, "certified_examples is 'every', but it must be one of 'all'"),
        ({"density": "gmm", "average": "log_density"}, "average is for density dp, but the density is gmm"),
        ({"density": "dpp"}, r"density is 'dpp', but it must be one of 'dp', 'gmm' \(did you mean 'dp'\?\)"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AnalysisOptions(**options)


def test_an_option_of_another_density_is_refused_at_its_default_too_if_it_was_given():
    check_density_options("gmm", ["components", "seed"])
    with pytest.raises(OptionError, match="chains is for density dp"):
        check_density_options("gmm", ["chains"])


def test_chains_start_move_and_stop_as_those_of_the_estimator():
    estimator, options = inspect.signature(DirichletProcessMixtures).parameters, AnalysisOptions()
    for name in ("init", "search", "stop", "max_sweeps"):
        assert getattr(options, name) == estimator[name].default
    assert options.split_merge is None and estimator["split_merge"].default == "auto"


def test_presets_ask_for_options_that_there_are_and_differ_from_the_papers():
    defaults = {own.name: own.default for cls in (AnalysisOptions, ImageOptions, NetworkOptions) for own in fields(cls)}
    defaults["seeds"] = 1
    for values in (*PRESETS.values(), *GPU_PRESETS.values()):
        assert values.keys() <= defaults.keys()
    for values in PRESETS.values():
        assert all(values[name] != defaults[name] for name in values)


def test_a_gpu_runs_the_demonstration_of_a_hundred_classes_at_full_width():
    small, full = preset("glyphs100", "cpu"), preset("glyphs100", "cuda:1")
    assert (small["width"], small["images_per_class"], small["memorization_networks"]) == (8, 150, 8)
    assert (full["width"], full["images_per_class"], full["memorization_networks"]) == (64, 500, 40)
    # Networks that estimate memorization must memorize as the analyzed one does.
    assert "memorization_epochs" not in small and "memorization_epochs" not in full
    assert full["certificate_draws"] == small["certificate_draws"] == 1000
    assert preset("digits", "cuda") == preset("digits", "cpu") and preset("CIFAR100", "cpu") == {}


def test_a_protocol_sets_definitions_and_amounts_and_asks_for_no_networks():
    published = AnalysisOptions.of_protocol("published")
    assert (published.average, published.weighting, published.kl_subsets) == ("log_density", "published", "threshold")
    assert (published.init, published.split_merge, published.certified_examples) == ("random", 0, "all")
    assert published.bins == published.memorization_networks == 0
    assert published.published_definitions and not AnalysisOptions().published_definitions
    assert AnalysisOptions.of_protocol("exact") == AnalysisOptions()
    own = AnalysisOptions.of_protocol("published", average="density", chains=2, seed=3)
    assert (own.average, own.chains, own.seed, own.weighting) == ("density", 2, 3, "published")
    assert not own.published_definitions
    mixtures = AnalysisOptions.of_protocol("published", density="gmm")
    assert mixtures.as_json()["weighting"] is None and mixtures.kl_subsets == "threshold"
    assert mixtures.published_definitions
    with pytest.raises(ValueError, match=r"protocol is 'publishd'.*did you mean 'published'"):
        AnalysisOptions.of_protocol("publishd")


def test_every_option_of_a_protocol_is_one_and_every_definition_differs_from_the_exact_one():
    defaults = {own.name: own.default for cls in (AnalysisOptions, NetworkOptions, ImageOptions) for own in fields(cls)}
    for protocol in PROTOCOLS.values():
        assert {*protocol.definitions, *protocol.amounts, *protocol.training} <= defaults.keys()
        assert all(defaults[name] != value or name == "stop" for name, value in protocol.definitions.items())
    named = {own.name for own in fields(DefinitionOptions)} - {own.name for own in fields(ScoreThresholds)}
    assert named <= PROTOCOLS["published"].definitions.keys()


def test_a_device_that_is_named_stays():
    assert resolve_device("cuda:3") == "cuda:3" and resolve_device("auto") in ("cpu", "cuda")

"""The command from images to memorization scores: its file, its sentences, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fastdens.cli import main
from fastdens.pipeline.experiment import Experiment, estimate_scores
from fastdens.training import flip_labels
from fastdens.training.datasets import load_images
from fastdens.training.runs import Recipe, load_run
from tests.command_page import names_of

QUICK = [
    "memorization",
    "--dataset",
    "digits",
    "--epochs",
    "1",
    "--width",
    "4",
    "--image-size",
    "8",
    "--batch-size",
    "256",
    "--device",
    "cpu",
]
QUICK += ["--processes", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("memorization")


@pytest.fixture(scope="module")
def printed(folder):
    """What the command prints; the scores and the networks are in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text, **_: lines.append(text))
        assert command(folder, "--networks", "3") == 0
    (line,) = lines
    return line


def command(folder, *options):
    return main([*QUICK, "--runs", str(folder / "runs"), "--output", str(folder / "scores.npz"), *options])


def scores_of(folder):
    with np.load(folder / "scores.npz") as file:
        return dict(file)


def test_scores_follow_from_the_networks(folder, printed):
    images = load_images("digits", Path("data"), 8, 0)
    given = flip_labels(images.train_labels, 0.1, 10, torch.Generator().manual_seed(0))
    found = scores_of(folder)
    np.testing.assert_array_equal(found["tr_labels"], given.labels.numpy())
    assert (found["tr_mem"].dtype, found["tr_labels"].dtype) == (np.float32, np.int32)
    results = [load_run(folder / "runs", f"memorization-{t:04d}", images, device="cpu") for t in range(3)]
    n_examples = len(images.train)
    with_it, without = [], []
    for i in range(n_examples):
        right = {True: [], False: []}
        for result in results:
            right[bool(result.included[i])].append(bool(result.train_predicted[i] == given.labels[i]))
        with_it.append(right[True])
        without.append(right[False])
    np.testing.assert_array_equal(found["n_included"], [len(r) for r in with_it])
    np.testing.assert_array_equal(found["n_left_out"], [len(r) for r in without])
    expected = [np.mean(a) - np.mean(b) if a and b else np.nan for a, b in zip(with_it, without, strict=True)]
    np.testing.assert_allclose(found["tr_mem"], expected, atol=1e-6)
    assert np.array_equal(np.isnan(found["tr_mem_standard_error"]), np.isnan(expected))
    assert found["n_included"].sum() == 3 * round(0.7 * n_examples)


def test_the_sentences_tell_what_is_in_the_file(folder, printed):
    found = scores_of(folder)
    known = np.isfinite(found["tr_mem"])
    score = found["tr_mem"][known]
    assert printed.startswith(
        f"digits: memorization of {len(known)} training examples, by 3 networks that each saw 70% "
    )
    # 0.7^3 of them are in all three networks, 0.3^3 in none.
    assert 0.5 < known.mean() < 0.75 and f"{(~known).sum()} examples have no score" in printed
    assert f"The mean score is {score.mean():.3f}, and {(score > 0.25).mean():.1%} have one over 0.25;" in printed
    assert f"standard error of a score is {found['tr_mem_standard_error'][known].mean():.3f}" in printed
    images = load_images("digits", Path("data"), 8, 0)
    flipped = found["tr_labels"] != images.train_labels.numpy()
    auc = roc_auc_score(flipped[known], score)
    assert f"finds the {flipped[known].sum()} flipped labels among them with an AUC of {auc:.3f}." in printed
    assert printed.endswith(str(folder / "scores.npz")) and "\n" not in printed


def test_an_output_is_replaced_on_request_only_and_networks_are_kept(folder, printed, capsys):
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    content = (folder / "scores.npz").read_bytes()
    assert command(folder, "--networks", "4") == 1
    assert "scores.npz exists already: choose another --output or pass --overwrite." in capsys.readouterr().err
    assert (folder / "scores.npz").read_bytes() == content and len(list((folder / "runs").iterdir())) == 3
    old = scores_of(folder)
    try:
        assert command(folder, "--networks", "4", "--overwrite") == 0
        assert "by 4 networks" in capsys.readouterr().out
        assert {path: path.stat().st_mtime_ns for path in before} == before
        new = scores_of(folder)
        np.testing.assert_array_equal(new["n_included"] + new["n_left_out"], np.full(len(new["tr_mem"]), 4))
        assert ((new["n_included"] - old["n_included"]) >= 0).all()
        assert {path.name for path in folder.iterdir()} == {"runs", "scores.npz"}
    finally:
        (folder / "scores.npz").write_bytes(content)


@pytest.mark.parametrize("same", [True, False])
def test_another_process_may_have_written_the_same_scores_and_no_others(
    folder, printed, tmp_path, monkeypatch, capsys, same
):
    estimate, output = Experiment.estimate_scores, tmp_path / "scores.npz"
    content = (folder / "scores.npz").read_bytes() if same else b"of other networks"

    def estimate_beside_another(*arguments, **options):
        output.write_bytes(content)
        return estimate(*arguments, **options)

    monkeypatch.setattr(Experiment, "estimate_scores", estimate_beside_another)
    words = [*QUICK, "--networks", "3", "--runs", str(folder / "runs"), "--output", str(output)]
    assert main(words) == (0 if same else 1)
    assert same or "exists already" in capsys.readouterr().err
    assert output.read_bytes() == content


def test_nothing_is_said_of_flips_where_there_are_none(tmp_path, capsys):
    assert command(tmp_path, "--networks", "2", "--flip", "0", "--share", "0.5", "--dtype", "bfloat16") == 0
    out = capsys.readouterr().out
    assert "saw 50% of them" in out and "AUC" not in out


def test_examples_that_all_networks_saw_have_no_score(tmp_path, capsys):
    assert command(tmp_path, "--networks", "1") == 0
    found, out = scores_of(tmp_path), capsys.readouterr().out
    assert np.isnan(found["tr_mem"]).all()
    assert f"{len(found['tr_mem'])} examples have no score" in out and "mean score" not in out
    assert command(tmp_path, "--networks", "1", "--overwrite", "--json", "--quiet") == 0
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=pytest.fail)
    assert err == "" and document.keys() == names_of("`memorization` adds:")
    assert (document["examples"], document["examples_with_a_score"]) == (len(found["tr_mem"]), 0)
    assert document["mean_score"] is document["auc_of_flipped_labels"] is None
    assert document["scores"] == str(tmp_path / "scores.npz") and document["share"] == 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--epochs 2", "memorization-0000.safetensors is a training run of epochs = 1, not 2: delete it"),
        ("--share 0.6", "another choice of training examples"),
        ("--flip 0.2", "other images or labels"),
        ("--dataset digit", "there is no data set 'digit' and no folder of that name"),
        ("--network resnet19", "there is no network 'resnet19'"),
        ("--share 0", "a share of 0.0 of 1437 examples leaves none in or none out"),
        ("--batch-size 1", "batch_size is 1"),
    ],
)
def test_errors_are_one_sentence(folder, printed, capsys, options, message):
    assert command(folder, "--networks", "3", "--overwrite", *options.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("fastdens: ") and error.count("\n") == 1


def test_an_interrupt_is_no_traceback(tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fastdens.training.runs.job.train", interrupted)
    assert command(tmp_path) == 130
    assert capsys.readouterr().err.endswith("what is finished is kept: the same command goes on from there.\n")
    assert not list((tmp_path / "runs").iterdir()) and not (tmp_path / "scores.npz").exists()


@pytest.mark.parametrize("options", [["--share", "1"], ["--networks", "0"], ["--dtype", "half"]])
def test_impossible_options_are_refused_at_once(tmp_path, options):
    with pytest.raises(SystemExit):
        command(tmp_path, *options)


def test_the_function_gives_what_the_command_writes(folder, printed):
    images = load_images("digits", Path("data"), 8, 0)
    given = flip_labels(images.train_labels, 0.1, 10, torch.Generator().manual_seed(0))
    recipe = Recipe(width=4, epochs=1, batch_size=256, augment=False)
    scores = estimate_scores(
        images, given.labels, recipe, folder=folder / "runs", n_networks=3, device="cpu", progress=False
    )
    np.testing.assert_array_equal(scores.score.astype(np.float32), scores_of(folder)["tr_mem"])

"""The command that says what a file of scores says."""

from __future__ import annotations

import numpy as np
import pytest

from fastdens.cli import main


@pytest.fixture
def problem(rng, tmp_path):
    labels = rng.permutation(np.repeat(["cat", "dog", "eel"], [40, 30, 20]))
    scores = np.round(rng.uniform(size=90), 3).astype(np.float32)
    scores[labels == "eel"] *= np.float32(0.1)
    np.savez(tmp_path / "scores.npz", tr_mem=scores, tr_labels=labels)
    np.save(tmp_path / "alone.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    return tmp_path, scores.astype(float), labels


def lines_of(capsys, *arguments):
    assert main(["scores", *map(str, arguments)]) == 0
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_a_file_of_scores_is_summarized(problem, capsys):
    folder, scores, labels = problem
    options = ["--label-examples", "7", "--kl-high", "0.5", "--kl-low", "0.05", "--kl-examples", "10"]
    found = lines_of(capsys, folder / "scores.npz", *options)
    assert found["examples with a score"] == "90" and found["mean score"] == f"{scores.mean():.4f}"
    assert found["share above 0.25"] == f"{(scores > 0.25).mean():.1%}"
    assert found["the 7 highest scores"] == f"from {np.sort(scores)[-7]:.4f}"
    assert found["the 7 lowest scores"] == f"up to {np.sort(scores)[6]:.4f}"
    for bound, chosen in (("of at least 0.5", scores >= 0.5), ("of at most 0.05", scores <= 0.05)):
        n = sum((chosen & (labels == name)).sum() >= 10 for name in ("cat", "dog", "eel"))
        assert found[f"classes with at least 10 examples of a score {bound}"] == str(n)
    means = {name: scores[labels == name].mean() for name in ("cat", "dog", "eel")}
    rising = [f"{name} ({mean:.3f})" for name, mean in sorted(means.items(), key=lambda item: item[1])]
    assert found["classes of the lowest mean score"] == ", ".join(rising) and rising[0].startswith("eel")
    assert found["classes of the highest mean score"] == ", ".join(rising[::-1])
    alone = lines_of(capsys, folder / "alone.npy", "--labels", folder / "labels.npy", *options)
    assert alone == found
    assert lines_of(capsys, folder / "alone.npy", *options)["classes"].startswith("the file has no labels")
    assert "not so many" in lines_of(capsys, folder / "alone.npy")["the 1000 highest and lowest scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npz"], "there is no file"),
        (["scores.npz", "--labels", "short.npy"], "90 scores, but there are 89 training examples"),
        (["scores.npz", "--labels", "other.npy"], "labels differ: pass the file of this training set"),
        (["scores.npz", "--labels", "scores.npz"], "cannot be read as an .npy array"),
        (["scores.npz", "--kl-low", "0.7"], "--kl-low is 0.7 and --kl-high 0.7"),
    ],
)
def test_errors_are_one_sentence(problem, capsys, monkeypatch, arguments, message):
    folder, _, labels = problem
    np.save(folder / "short.npy", labels[:-1])
    np.save(folder / "other.npy", np.roll(labels, 1))
    monkeypatch.chdir(folder)
    assert main(["scores", *arguments]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1

"""Files of memorization scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.analysis.arguments import as_numpy
from fastdens.kernels.options import suggest

_SCORES, _LABELS = "tr_mem", "tr_labels"


class ScoreFile(NamedTuple):
    """Scores of the training examples, float64 [N], and their labels, int64 [N], or None if the file has none."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64] | None


def read_memorization_scores(
    path: str | os.PathLike[str], n_examples: int | None = None, labels: ArrayLike | Tensor | None = None
) -> ScoreFile:
    """Read the memorization score of each training example.

    Parameters
    ----------
    path : path-like
        An ``.npz`` file with the scores [N] as ``tr_mem`` and, optionally, the labels [N] as ``tr_labels``; other
        arrays are ignored. Or an ``.npy`` file with the scores alone.
    n_examples : int, optional
        Expected number of training examples; by default that of ``labels``, if given.
    labels : array or Tensor, optional
        [N] integers, the labels of the training examples. Labels in the file must agree with them: they are the only
        evidence that the scores are in the order of these examples.

    Returns
    -------
    ScoreFile

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or has no ``tr_mem``, the number of scores is not ``n_examples``, a score is not finite,
        or its labels differ from ``labels``.

    References
    ----------
    Jamroz & Kurdziel, Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional
    Networks, AAAI 2023 (whose published files these are).
    """
    file = Path(path)
    scores, own_labels = _read(file)
    given = None if labels is None else as_numpy(labels)
    if n_examples is None and given is not None:
        n_examples = given.size
    if n_examples is not None and len(scores) != n_examples:
        raise ValueError(
            f"{file} holds {len(scores)} scores, but there are {n_examples} training examples: pass the file made for "
            "this training set, with one score for each example in the order of the examples."
        )
    bad = ~np.isfinite(scores)
    if bad.any():
        raise ValueError(
            f"{file} has a score of {scores[bad][0]} at example {bad.argmax()}, and {bad.sum()} in all that are "
            "not finite: train more networks until each example is in some training sets and left out of others."
        )
    if given is not None and given.shape != scores.shape:
        raise ValueError(
            f"labels has shape {given.shape}, but there are {len(scores)} training examples: pass one label for each."
        )
    if given is not None and own_labels is not None and (differ := own_labels != given).any():
        at = int(differ.argmax())
        raise ValueError(
            f"{file} has label {own_labels[at]} for example {at}, but that of the training set is {given[at]}, and "
            f"{differ.sum()} of {len(differ)} labels differ: pass the file of this training set, in this order."
        )
    return ScoreFile(scores, own_labels)


def _read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Scores and labels, of the right types and of equal length."""
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        nearest = f"; names like it there: {suggest(path.name, beside)}" if beside else ""
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}{nearest}"
        raise FileNotFoundError(f"{what}: pass the path of a file of scores.")
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                names = content.files
                arrays = {name: content[name] for name in (_SCORES, _LABELS) if name in names}
        else:
            names, arrays = [_SCORES], {_SCORES: content}
    except PermissionError:
        raise
    # For a damaged file, numpy, zipfile, zlib, tokenize and ast each raise errors of their own.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as .npz or .npy, it is damaged or of another format "
            f"({type(error).__name__}): fetch it again, or write it with numpy.savez(path, {_SCORES}=scores)."
        ) from None
    if _SCORES not in arrays:
        nearest = suggest(_SCORES, names) or "nothing"
        raise ValueError(f"{path} has no array {_SCORES!r}, it holds {nearest}: save the scores under that name.")
    scores = _checked(path, _SCORES, arrays[_SCORES], np.floating, "one floating-point number per example")
    if _LABELS not in arrays:
        return scores.astype(np.float64), None
    labels = _checked(path, _LABELS, arrays[_LABELS], np.integer, "one integer per example")
    if len(labels) != len(scores):
        raise ValueError(f"{path} holds {len(scores)} scores and {len(labels)} labels: save one of each per example.")
    return scores.astype(np.float64), labels.astype(np.int64)


def _checked(
    path: Path, name: str, array: NDArray[Any], kind: type[np.floating] | type[np.integer], wanted: str
) -> NDArray[Any]:
    if array.ndim != 1 or not np.issubdtype(array.dtype, kind):
        raise ValueError(f"{name} of {path} is {array.dtype} of shape {array.shape}: save {wanted}, shape [N].")
    return array

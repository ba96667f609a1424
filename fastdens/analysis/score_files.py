"""Files of memorization scores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from fastdens.arrays import read
from fastdens.io.archives import read_named_arrays
from fastdens.kernels.options import suggest
from fastdens.labels import read_labels

_SCORES, _LABELS = "tr_mem", "tr_labels"


class ScoreFile(NamedTuple):
    """Memorization scores of N training examples, as a file has them.

    Attributes
    ----------
    scores : ndarray
        float64 [N].
    labels : ndarray or None
        [N], int64 or names; None if the file has none.
    """

    scores: NDArray[np.float64]
    labels: NDArray[Any] | None


def read_memorization_scores(
    path: str | os.PathLike[str],
    n_examples: int | None = None,
    labels: ArrayLike | Tensor | None = None,
    *,
    examples: NDArray[np.int64] | None = None,
    allow_pickle: bool = False,
) -> ScoreFile:
    """Read the memorization score of each training example.

    Parameters
    ----------
    path : path-like
        An ``.npz`` file, or a pickled dict, with the scores [N] as ``tr_mem`` and, optionally, the labels [N] as
        ``tr_labels``; other arrays are ignored. Or an ``.npy`` file with the scores alone.
    n_examples : int, optional
        Expected number of scores in the file; by default that of ``labels``, if these are not some of the examples.
    labels : array or Tensor, optional
        [N], the labels of the training examples, of any kind. Labels in the file must agree with them: they are the
        only evidence that the scores are in the order of these examples.
    examples : ndarray, optional
        int64 [n], the examples of the file to read, in this order; ``labels`` are theirs. By default all.
    allow_pickle : bool
        Read pickled dicts and arrays of Python objects, by a reader that makes arrays, numbers and text of them and
        runs nothing.

    Returns
    -------
    ScoreFile
        The scores, and the labels where the file has some.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or has no ``tr_mem``, the number of scores is not ``n_examples``, a score is not finite,
        its labels differ from ``labels``, or it has Python objects and ``allow_pickle`` is False.

    References
    ----------
    Jamroz & Kurdziel, Neural Representations Reveal Distinct Modes of Class Fitting in Residual Convolutional
    Networks, AAAI 2023 (whose published files these are).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdens.analysis import read_memorization_scores
    >>> np.savez("scores.npz", tr_mem=np.array([0.1, 0.9]), tr_labels=np.array([3, 5]))
    >>> read_memorization_scores("scores.npz", labels=[3, 5]).scores
    array([0.1, 0.9])
    """
    file = Path(path)
    scores, own_labels = _read(file, allow_pickle=allow_pickle)
    if n_examples is None and examples is None and labels is not None and (array := read(labels, "labels")).ndim == 1:
        n_examples = len(array)
    if n_examples is not None and len(scores) != n_examples:
        raise ValueError(
            f"{file} holds {len(scores)} scores, but there are {n_examples} training examples: pass the file made for "
            "this training set, with one score for each example in the order of the examples."
        )
    if examples is not None:
        if len(examples) and examples.max() >= len(scores):
            raise ValueError(
                f"{file} holds {len(scores)} scores, but the examples run to {examples.max()}: pass the file made for "
                "the whole training set."
            )
        scores, own_labels = scores[examples], None if own_labels is None else own_labels[examples]
    bad = ~np.isfinite(scores)
    if bad.any():
        raise ValueError(
            f"{file} has a score of {scores[bad][0]} at example {bad.argmax()}, and {bad.sum()} in all that are "
            "not finite: train more networks until each example is in some training sets and left out of others."
        )
    given = None if labels is None else _plain(labels, len(scores), "labels")
    if given is not None and own_labels is not None and (differ := _differ(own_labels, given)).any():
        at = int(differ.argmax())
        raise ValueError(
            f"{file} has label {own_labels[at]} for example {at}, but that of the training set is {given[at]}, and "
            f"{differ.sum()} of {len(differ)} labels differ: pass the file of this training set, in this order."
        )
    return ScoreFile(scores, own_labels)


def _read(path: Path, *, allow_pickle: bool) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Scores and labels, of the right types and of equal length."""
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        nearest = f"; names like it there: {suggest(path.name, beside)}" if beside else ""
        what = f"{path} is a folder" if path.is_dir() else f"there is no file {path}{nearest}"
        raise FileNotFoundError(f"{what}: pass the path of a file of scores.")
    names, arrays = read_named_arrays(path, (_SCORES, _LABELS), allow_pickle=allow_pickle)
    if _SCORES not in arrays:
        nearest = suggest(_SCORES, names) or "nothing"
        raise ValueError(f"{path} has no array {_SCORES!r}, it holds {nearest}: save the scores under that name.")
    scores = _checked(path, _SCORES, arrays[_SCORES], "f", "one floating-point number per example").astype(np.float64)
    if _LABELS not in arrays:
        return scores, None
    labels = _checked(path, _LABELS, arrays[_LABELS], "biufSUT", "one integer or name per example")
    if len(labels) != len(scores):
        raise ValueError(f"{path} holds {len(scores)} scores and {len(labels)} labels: save one of each per example.")
    try:
        return scores, _plain(labels, len(scores), f"{_LABELS} of {path}")
    except TypeError as error:
        raise ValueError(str(error)) from None


def _plain(labels: ArrayLike | Tensor, n_examples: int, name: str) -> NDArray[Any]:
    """Labels of any kind as an array."""
    found = read_labels(labels, n_examples, name, "there are {} training examples")
    return found.cpu().numpy() if isinstance(found, Tensor) else found


def _differ(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Where labels differ; those of different kinds do everywhere."""
    return np.array([a != b for a, b in zip(one.tolist(), other.tolist(), strict=True)], bool)


def _checked(path: Path, name: str, array: NDArray[Any], kinds: str, wanted: str) -> NDArray[Any]:
    """The array, if it is one-dimensional and its dtype is of one of numpy's kinds."""
    if array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(f"{name} of {path} is {array.dtype} of shape {array.shape}: save {wanted}, shape [N].")
    return array

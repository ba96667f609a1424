"""Randomized smoothing: how far an example may be moved without the smoothed network changing its mind."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fastdens.activations import evaluating
from fastdens.analysis._classifier import Classifier, as_inputs, predicted_classes, random_generator
from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.errors import check_integer
from fastdens.io.state_file import fingerprint, read_state, write_state
from fastdens.progress import progress_bar

_KIND = "checkpoint of certificates"
_SECONDS_BETWEEN_CHECKPOINTS = 5.0
# Numbers drawn at once: enough to keep a device busy, few beside a batch of inputs.
_NUMBERS_AT_ONCE = 1 << 22


class Certificates(NamedTuple):
    """Certificates of N examples.

    Attributes
    ----------
    predicted : int64 [N]
        Class of the smoothed classifier, -1 where it abstains.
    radius : float64 [N]
        No move of the example by less than this, in Euclidean distance in the units of ``x``, changes that class; 0
        where it abstains.
    lower_bound : float64 [N]
        Of the probability of the selected class under noise, at confidence 1 - alpha.
    n_selected : int64 [N]
        How many of the ``n`` draws gave the selected class.
    n : int
    labels : int64 [N] or None
        As given to :func:`certify`.
    """

    predicted: NDArray[np.int64]
    radius: NDArray[np.float64]
    lower_bound: NDArray[np.float64]
    n_selected: NDArray[np.int64]
    n: int
    labels: NDArray[np.int64] | None

    def correct(self, labels: ArrayLike | Tensor | None = None) -> NDArray[np.bool_]:
        """Where the smoothed classifier gives the label, bool [N]; without ``labels`` those given to certify.

        Raises
        ------
        ValueError
            If there are no labels, or not one an example.
        """
        given = self.labels if labels is None else as_labels(labels, len(self.predicted))
        if given is None:
            raise ValueError("the certificates came without labels: pass labels, here or to certify.")
        return self.predicted == given

    def certified_accuracy(
        self, radii: ArrayLike | Tensor, labels: ArrayLike | Tensor | None = None
    ) -> NDArray[np.float64]:
        """Share of the examples of right class and a radius of at least ``radii`` (of any shape, which is kept)."""
        reached = self.radius >= as_numpy(radii).astype(np.float64)[..., None]
        return np.asarray((self.correct(labels) & reached).mean(-1))


def certify(
    model: nn.Module,
    x: ArrayLike | Tensor,
    sigma: float,
    *,
    labels: ArrayLike | Tensor | None = None,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    batch_size: int = 1000,
    random_state: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Certificates:
    r"""Certify the classifier smoothed by noise, ``g(x) = argmax_c P(model(x + e) = c)``, e ~ N(0, sigma^2 I).

    The class that most of ``n0`` draws give is selected; ``n`` fresh draws bound its probability from below by
    :math:`\underline{p_A}`, the one-sided exact (Clopper-Pearson) bound at level ``alpha``. If that exceeds one half,
    the smoothed classifier gives this class everywhere within
    :math:`R = \sigma \Phi^{-1}(\underline{p_A})` of the example, else it abstains. Each certificate is wrong with
    probability ``alpha`` at most.

    Parameters
    ----------
    model : nn.Module
        From inputs [B, ...] to logits [B, classes], in float64, float32 or half precision. It runs in evaluation mode
        without gradients and is left in the mode it was in.
    x : array or Tensor
        [N, ...] floating-point inputs, anywhere.
    sigma : float
        Standard deviation of the noise, in the units of ``x``.
    labels : array or Tensor, optional
        [N] integers from 0, kept for :meth:`Certificates.certified_accuracy`; the certificates do not depend on them.
    n0, n : int
        Draws to select the class and to bound its probability.
    alpha : float
        Probability of error, between 0 and 1.
    batch_size : int
        Inputs of one pass. Examples of fewer draws share a pass.
    random_state : int
        Seed. The noise of example i depends on this, i, ``n0 + n`` and the device, and neither on ``batch_size`` nor
        on the other examples.
    checkpoint : path-like, optional
        A file, written every few seconds and when the call ends or is interrupted, from which the same call goes on
        with the first unfinished example. It knows its model by its ``state_dict``.
    device : torch.device or str, optional
        Where the inputs are moved; by default where the model's parameters are.
    progress : bool
        Show a progress bar (needs rich).

    Returns
    -------
    Certificates

    Raises
    ------
    ValueError
        If a parameter is out of its range, the inputs or labels are bad, the model gives no [B, classes] or gives NaN,
        or ``checkpoint`` is of another call.
    TypeError
        If ``model`` or ``x`` is of another type.
    ImportError
        If scipy, safetensors for a checkpoint, or rich for the progress bar is missing.

    References
    ----------
    Cohen, Rosenfeld & Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019 (CERTIFY).
    Clopper & Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26,
    1934.
    """
    try:
        from scipy.special import ndtri
        from scipy.stats import beta
    except ImportError:
        raise ImportError("certify needs scipy, not installed: pip install 'fastdens[analysis]'.") from None
    if not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma is {sigma}, but the standard deviation of the noise must be positive.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, but a probability of error lies between 0 and 1.")
    n0, n = check_integer("n0", n0, 1), check_integer("n", n, 1)
    batch_size = check_integer("batch_size", batch_size, 1)
    random_state = check_integer("random_state", random_state, 0)
    inputs = as_inputs(x)
    given = None if labels is None else as_labels(labels, len(inputs))
    classifier = Classifier(model, device)
    draws = _Draws(float(sigma), n0, n, random_state)
    file = None if checkpoint is None else _Checkpoint.of(Path(checkpoint), model, inputs, draws, float(alpha))
    with evaluating(model), torch.inference_mode():
        n_classes = classifier.n_classes(inputs)
        if given is not None:
            as_labels(given, len(inputs), n_classes)
        selected, n_selected = _select_and_count(classifier, inputs, n_classes, draws, batch_size, file, progress)
    # The quantile is not defined at a count of zero, where the bound is zero.
    quantile = beta.ppf(alpha, np.maximum(n_selected, 1), n - n_selected + 1)
    lower_bound = np.where(n_selected > 0, quantile, 0.0)
    certain = lower_bound > 0.5
    return Certificates(
        np.where(certain, selected, -1),
        np.where(certain, sigma * ndtri(lower_bound), 0.0),
        lower_bound,
        n_selected,
        n,
        given,
    )


class _Draws(NamedTuple):
    """What determines the noise: ``n0`` draws select, ``n`` count."""

    sigma: float
    n0: int
    n: int
    random_state: int


def _select_and_count(
    classifier: Classifier,
    inputs: Tensor,
    n_classes: int,
    draws: _Draws,
    batch_size: int,
    file: _Checkpoint | None,
    progress: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The class that the first draws of each example select and how many of the others give it, int64 [N] each.

    Passes begin at the same examples whether or not the call was interrupted: the rounding of a model may depend on
    what else is in a pass.
    """
    n_examples = len(inputs)
    examples_a_pass = max(batch_size // (draws.n0 + draws.n), 1)
    selected, n_selected = np.zeros(n_examples, np.int64), np.zeros(n_examples, np.int64)
    done = 0
    if file is not None:
        done = file.read(selected, n_selected)
        # An unwritable place shows now, not after hours.
        file.write(selected[:done], n_selected[:done])
    with progress_bar("Certificates", n_examples, shown=progress) as advance:
        advance(done)
        try:
            while done < n_examples:
                examples = range(done, min(done + examples_a_pass, n_examples))
                votes, counts = _class_counts(classifier, inputs, examples, n_classes, draws, batch_size)
                selected[examples] = votes.argmax(1)
                n_selected[examples] = counts[np.arange(len(examples)), selected[examples]]
                done = examples.stop
                advance(len(examples))
                if file is not None and file.is_due():
                    file.write(selected[:done], n_selected[:done])
        finally:
            if file is not None:
                file.write(selected[:done], n_selected[:done])
    return selected, n_selected


def _class_counts(
    classifier: Classifier, inputs: Tensor, examples: range, n_classes: int, draws: _Draws, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How often each class is predicted in the first ``n0`` draws of some examples, and in the ``n`` after, [B, K]."""
    votes, counts = np.zeros((2, len(examples), n_classes), np.int64)
    x = inputs[examples.start : examples.stop].to(classifier.device, classifier.dtype)
    n_draws = draws.n0 + draws.n
    noise = [_Noise(random_generator(x.device, draws.random_state, i), x[0], n_draws) for i in examples]
    for start in range(0, n_draws, batch_size):
        size = min(batch_size, n_draws - start)
        noisy = x.new_empty(len(examples), size, *x.shape[1:])
        for row, own, out in zip(x, noise, noisy, strict=True):
            torch.add(row, own.take(size), alpha=draws.sigma, out=out)
        predicted = predicted_classes(classifier(noisy.flatten(0, 1))).view(len(examples), size).cpu().numpy()
        n_votes = max(draws.n0 - start, 0)
        for i, row, of_first, of_others in zip(examples, predicted, votes, counts, strict=True):
            if row.min() < 0:
                raise ValueError(f"the model gives NaN for example {i} under noise: repair the model or lower sigma.")
            of_first += np.bincount(row[:n_votes], minlength=n_classes)
            of_others += np.bincount(row[n_votes:], minlength=n_classes)
    return votes, counts


class _Noise:
    """Standard normal draws of the shape of one example, the same numbers however many are taken at a time."""

    def __init__(self, generator: torch.Generator, like: Tensor, n_draws: int) -> None:
        # What a generator gives depends on how much is asked of it at once: that is a fixed amount.
        self._block = (max(min(_NUMBERS_AT_ONCE // like.numel(), n_draws), 1), *like.shape)
        self._generator = generator
        self._left = like.new_empty(0, *like.shape)

    def take(self, n: int) -> Tensor:
        """The next n draws, [n, ...]."""
        parts: list[Tensor] = []
        while n > 0:
            if not len(self._left):
                left = self._left
                self._left = torch.randn(self._block, generator=self._generator, dtype=left.dtype, device=left.device)
            parts.append(self._left[:n])
            self._left = self._left[n:]
            n -= len(parts[-1])
        return torch.cat(parts)


@dataclass
class _Checkpoint:
    """The finished examples in a file, and the facts by which it knows the call."""

    path: Path
    facts: dict[str, Any]
    written: float = -math.inf
    n_written: int = -1

    @classmethod
    def of(cls, path: Path, model: nn.Module, inputs: Tensor, draws: _Draws, alpha: float) -> _Checkpoint:
        state = (value for value in model.state_dict().values() if isinstance(value, Tensor))
        return cls(path, {"x": fingerprint([inputs]), "model": fingerprint(state), **draws._asdict(), "alpha": alpha})

    def read(self, selected: NDArray[np.int64], n_selected: NDArray[np.int64]) -> int:
        """Fill in the examples that are in the file, if there is one; their number."""
        if not self.path.exists():
            return 0
        tensors, found = read_state(self.path, _KIND)
        for name, value in self.facts.items():
            if found.get(name) != value:
                what = f"another {name}" if name in ("x", "model") else f"{name} = {found.get(name)!r}, not {value!r}"
                raise ValueError(f"{self.path} is a {_KIND} of {what}: delete it or pass another path.")
        done = len(tensors["selected"])
        selected[:done] = tensors["selected"].numpy()
        n_selected[:done] = tensors["n_selected"].numpy()
        self.n_written = done
        return done

    def is_due(self) -> bool:
        return time.monotonic() - self.written > _SECONDS_BETWEEN_CHECKPOINTS

    def write(self, selected: NDArray[np.int64], n_selected: NDArray[np.int64]) -> None:
        """Write the finished examples, unless the file has them."""
        if len(selected) == self.n_written:
            return
        tensors = {"selected": torch.from_numpy(selected), "n_selected": torch.from_numpy(n_selected)}
        write_state(self.path, _KIND, tensors, self.facts, overwrite=True)
        self.written, self.n_written = time.monotonic(), len(selected)

"""Randomized smoothing certificates (Cohen et al. 2019)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fastdens.activations import model_identity
from fastdens.analysis._classifier import Classifier, as_inputs, predicted_classes, random_generator
from fastdens.analysis.arguments import as_labels, as_numpy
from fastdens.errors import check_integer
from fastdens.io.shared_work import SharedWork
from fastdens.io.state_file import StateFile, fingerprint
from fastdens.kernels.optional import require
from fastdens.progress import Advance, progress_bar

Counts = dict[str, Tensor]

# Into so many parts the passes are divided among processes.
_BLOCKS = 1024
_DIFFERENCES = {
    "x": "another x",
    "model": "another model, of other weights",
    "structure": "another model, of other modules",
    "sample": "other logits of the first example",
}
# Normal numbers drawn at once: enough to keep a device busy, few beside a batch of inputs.
_NUMBERS_AT_ONCE = 1 << 22


class Certificates(NamedTuple):
    """Certificates of N examples.

    Attributes
    ----------
    predicted : ndarray
        int64 [N], class of the smoothed classifier, -1 where it abstains.
    radius : ndarray
        float64 [N], certified radius: no perturbation of a smaller Euclidean norm, in the units of ``x``, changes the
        class. 0 where the classifier abstains.
    lower_bound : ndarray
        float64 [N], lower confidence bound, at level 1 - alpha, of the probability of the selected class under noise.
    n_selected : ndarray
        int64 [N], number of the ``n`` draws that gave the selected class.
    n : int
        Draws behind the bound.
    labels : ndarray or None
        int64 [N], as given to :func:`certify`.
    """

    predicted: NDArray[np.int64]
    radius: NDArray[np.float64]
    lower_bound: NDArray[np.float64]
    n_selected: NDArray[np.int64]
    n: int
    labels: NDArray[np.int64] | None

    def correct(self, labels: ArrayLike | Tensor | None = None) -> NDArray[np.bool_]:
        """Whether the smoothed classifier gives the label of each example.

        Parameters
        ----------
        labels : array or Tensor, optional
            [N] integers; by default those that were given to :func:`certify`.

        Returns
        -------
        ndarray
            bool [N]; an abstention is not correct.

        Raises
        ------
        ValueError
            If there are no labels, or not one for each example.
        """
        given = self.labels if labels is None else as_labels(labels, len(self.predicted))
        if given is None:
            raise ValueError("the certificates came without labels: pass labels, here or to certify.")
        return np.asarray(self.predicted == given)

    def certified_accuracy(
        self, radii: ArrayLike | Tensor, labels: ArrayLike | Tensor | None = None
    ) -> NDArray[np.float64]:
        """Share of the examples that are classified correctly with at least a certain radius.

        Parameters
        ----------
        radii : array or Tensor
            Any shape, in the units of ``x``.
        labels : array or Tensor, optional
            [N] integers; by default those that were given to :func:`certify`.

        Returns
        -------
        ndarray
            float64, in the shape of ``radii``.

        Raises
        ------
        ValueError
            As for :meth:`correct`.
        """
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

    The majority class of ``n0`` draws is selected; ``n`` fresh draws bound its probability from below by
    :math:`\underline{p_A}`, the one-sided exact (Clopper-Pearson) bound at level ``alpha``. If the bound exceeds one
    half, the smoothed classifier gives this class everywhere within
    :math:`R = \sigma \Phi^{-1}(\underline{p_A})` of the example; otherwise it abstains. Each certificate is wrong
    with probability at most ``alpha``.

    Parameters
    ----------
    model : nn.Module
        From inputs [B, ...] to logits [B, classes], in float64, float32 or half precision; the logits may be the only
        tensor of a dict or a dataclass. It runs in evaluation mode without gradients and is given back as it was.
    x : array or Tensor
        [N, ...] floating-point inputs, on any device.
    sigma : float
        Standard deviation of the noise, in the units of ``x``.
    labels : array or Tensor, optional
        [N] integers from 0, kept for :meth:`Certificates.certified_accuracy`; the certificates do not depend on them.
    n0, n : int
        Draws to select the class and to bound its probability.
    alpha : float
        Probability of error, between 0 and 1.
    batch_size : int
        Inputs of one forward pass. Several examples share a pass if their draws fit.
    random_state : int
        Seed. The noise of example i depends on this, i, ``n0 + n`` and the device, and neither on ``batch_size`` nor
        on the other examples.
    checkpoint : path-like, optional
        File for the counts of all examples, from which the same call is answered later. Until it is there, finished
        examples lie in a hidden folder beside it, ``.NAME.parts``, from which the same call goes on after an
        interruption, and which processes that make the same call at the same time share: each example is done by one
        of them. A killed process loses the examples of the last seconds.
    device : torch.device or str, optional
        Device of the computation; by default that of the model's parameters.
    progress : bool
        Show a progress bar (in a terminal, needs rich).
        The bar of a resumed call starts with the finished examples.

    Returns
    -------
    Certificates
        The class and the radius of each example.

    Raises
    ------
    ValueError
        If a parameter is out of its range, the inputs or labels are bad, the model gives no [B, classes] or gives NaN,
        or ``checkpoint`` is of another call.
    TypeError
        If ``model`` or ``x`` is of another type.
    ImportError
        If scipy, safetensors or filelock for a checkpoint, or rich for the progress bar is missing.

    References
    ----------
    Cohen, Rosenfeld & Kolter, Certified adversarial robustness via randomized smoothing, ICML 2019 (CERTIFY).
    Clopper & Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26,
    1934.

    Examples
    --------
    >>> import torch
    >>> from fastdens.analysis import certify
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> x, labels = torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1])
    >>> certificates = certify(model, x, sigma=0.5, labels=labels, n=1000, progress=False)
    >>> certificates.predicted
    array([0, 1])
    >>> certificates.certified_accuracy([0.5, 5.0])
    array([1., 0.])
    """
    stats = require("scipy.stats", "certify", "analysis")
    special = require("scipy.special", "certify", "analysis")
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
    with (
        classifier.evaluating(),
        torch.no_grad(),
        progress_bar("Certificates", len(inputs), shown=progress) as advance,
    ):
        logits = classifier.first_logits(inputs)
        if given is not None:
            as_labels(given, len(inputs), logits.shape[1])
        counting = _Counting(classifier, inputs, logits.shape[1], draws, batch_size)
        if checkpoint is None:
            counts = counting.all(advance)
        else:
            counts = _count_together(counting, model, logits, float(alpha), Path(checkpoint), advance)
    selected, n_selected = counts["selected"].numpy(), counts["n_selected"].numpy()
    # The quantile is not defined at a count of zero, where the bound is zero.
    quantile = stats.beta.ppf(alpha, np.maximum(n_selected, 1), n - n_selected + 1)
    lower_bound = np.where(n_selected > 0, quantile, 0.0)
    certain = lower_bound > 0.5
    return Certificates(
        np.where(certain, selected, -1),
        np.where(certain, sigma * special.ndtri(lower_bound), 0.0),
        lower_bound,
        n_selected,
        n,
        given,
    )


class _Draws(NamedTuple):
    """Parameters of the noise: ``n0`` draws select the class, ``n`` count it."""

    sigma: float
    n0: int
    n: int
    random_state: int


class _Counting(NamedTuple):
    """Passes over the examples, numbered from 0: over several at once, if all of their draws fit in a batch.

    The rounding of a model may depend on the other inputs of a pass: the passes are the same in every call.
    """

    classifier: Classifier
    inputs: Tensor
    n_classes: int
    draws: _Draws
    batch_size: int

    @property
    def n_together(self) -> int:
        """Examples of a pass."""
        return max(self.batch_size // (self.draws.n0 + self.draws.n), 1)

    @property
    def n_passes(self) -> int:
        """Number of passes."""
        return -(-len(self.inputs) // self.n_together)

    def all(self, advance: Advance) -> Counts:
        """The counts of all examples."""
        parts = []
        for number in range(self.n_passes):
            parts.append(self.select_and_count(number))
            advance(len(parts[-1]["selected"]))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def select_and_count(self, number: int) -> Counts:
        """Select the class of each example of a pass by the first draws, and count it in the others."""
        begin = number * self.n_together
        examples = range(begin, min(begin + self.n_together, len(self.inputs)))
        self.classifier.begin(number)
        votes, tallies = _class_counts(
            self.classifier, self.inputs, examples, self.n_classes, self.draws, self.batch_size
        )
        selected = votes.argmax(1)
        n_selected = tallies[np.arange(len(examples)), selected]
        return {"selected": torch.from_numpy(selected), "n_selected": torch.from_numpy(n_selected)}


def _count_together(
    counting: _Counting, model: nn.Module, logits: Tensor, alpha: float, path: Path, advance: Advance
) -> Counts:
    """The counts of all examples, together with other processes of the same call, by way of a file."""
    n_examples, n_together = len(counting.inputs), counting.n_together
    known = model_identity(model)
    identity = {
        "x": fingerprint([counting.inputs]),
        "model": known["weights"],
        **counting.draws._asdict(),
        "alpha": alpha,
    }
    file = StateFile(path, "checkpoint of certificates", identity, _DIFFERENCES)
    # A file of an earlier version may hold the first examples alone.
    before = file.read().tensors if path.exists() else {"selected": torch.empty(0, dtype=torch.int64, device="cpu")}
    n_before = len(before["selected"])
    work = SharedWork(path, "certification", _DIFFERENCES, -(-counting.n_passes // _BLOCKS), counting.n_passes)
    if n_before == n_examples:
        # A process may have been killed after it wrote the file.
        work.remove()
        advance(n_examples)
        return before

    def count(numbers: Iterator[int]) -> Iterator[tuple[int, Counts]]:
        for number in numbers:
            begin, end = number * n_together, min((number + 1) * n_together, n_examples)
            finished = {name: values[begin:end] for name, values in before.items()}
            yield number, finished if end <= n_before else counting.select_and_count(number)

    told = 0

    def advance_passes(steps: int = 1, note: str | None = None) -> None:
        # The last pass may have fewer examples.
        nonlocal told
        before, told = told, min(told + steps * n_together, n_examples)
        advance(told - before, note)

    def write(pieces: Iterator[Counts]) -> None:
        parts = list(pieces)
        file.write({name: torch.cat([part[name] for part in parts]) for name in parts[0]})

    with work.opened():
        work.enter({**identity, "structure": known["structure"], "batch": n_together}, {"logits": logits})
        work.complete(count, advance_passes)
        work.finish(write)
    return file.read().tensors


def _class_counts(
    classifier: Classifier, inputs: Tensor, examples: range, n_classes: int, draws: _Draws, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Predictions of each class for some examples, int64 [B, K]: in the first ``n0`` draws, and in the ``n`` others."""
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
    """Standard normal draws of the shape of one example, the same for every way to split them into portions."""

    def __init__(self, generator: torch.Generator, like: Tensor, n_draws: int) -> None:
        # The numbers of a generator depend on how many are drawn at once, so that blocks have a fixed size.
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

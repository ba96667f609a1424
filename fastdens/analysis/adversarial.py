"""Accuracy under attack by projected gradient descent (Madry et al. 2018)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from fastdens.analysis._classifier import Classifier, as_inputs, predicted_classes, random_generator
from fastdens.analysis.arguments import as_labels
from fastdens.errors import check_integer, check_non_negative
from fastdens.kernels.options import suggest
from fastdens.progress import progress_bar

_NORMS = ("l2", "linf")
# Standardized inputs are rounded: they may exceed the bounds by this share of their range.
_SLACK = 1e-4


class PGDAccuracy(NamedTuple):
    """Accuracy of a model on N examples under attack.

    Attributes
    ----------
    accuracy, standard_error : float
        Share of the examples that no attack fooled, and its binomial standard error.
    robust : ndarray
        bool [N], whether the model is right without an attack and under every attack.
    clean : ndarray
        bool [N], whether the model is right without an attack.
    """

    accuracy: float
    standard_error: float
    robust: NDArray[np.bool_]
    clean: NDArray[np.bool_]


def pgd_accuracy(
    model: nn.Module,
    x: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    epsilon: float,
    *,
    norm: str = "l2",
    steps: int = 20,
    step_size: float | None = None,
    n_restarts: int = 1,
    bounds: tuple[ArrayLike | Tensor, ArrayLike | Tensor] | None = None,
    batch_size: int = 256,
    random_state: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> PGDAccuracy:
    """Accuracy under projected gradient descent within a ball around each example.

    An attack starts at a random point of the ball. Each step moves by ``step_size`` in the direction of steepest ascent
    of the cross entropy in the norm, and projects onto the ball and the bounds. An example is robust if the model is
    right at the example and at every point that the attacks visit. The result is an upper bound of the accuracy in the
    ball: a stronger attack may fool more examples.

    Parameters
    ----------
    model : nn.Module
        Differentiable map from inputs [B, ...] to logits [B, classes], which may be the only tensor of a dict or a
        dataclass. It runs in evaluation mode and is given back as it was, the gradients of its parameters included.
    x : array or Tensor
        [N, ...] floating-point inputs, on any device.
    labels : array or Tensor
        [N] integers from 0.
    epsilon : float
        Radius of the ball, in the units of ``x``; 0 gives the clean accuracy.
    norm : {"l2", "linf"}
        Norm of the ball.
    steps : int
        Gradient steps of an attack.
    step_size : float, optional
        Length of a step in the norm; by default ``2.5 * epsilon / steps``.
    n_restarts : int
        Attacks on each example, from different points.
    bounds : (low, high), optional
        Smallest and largest value of an input: numbers, or tensors that broadcast with one example, such as [channels,
        1, 1] for standardized images.
    batch_size : int
        Examples of one forward pass.
    random_state : int
        Seed. The random starts of example i depend on this, i and the device, and neither on ``batch_size`` nor on the
        other examples.
    device : torch.device or str, optional
        Device of the attack; by default that of the model's parameters.
    progress : bool
        Show a progress bar (in a terminal, needs rich).

    Returns
    -------
    PGDAccuracy
        The accuracy within the ball, and which examples are robust.

    Raises
    ------
    ValueError
        If a parameter is out of its range, the inputs or labels are invalid, an input is out of the bounds, or the
        output of the model is not [B, classes], is NaN, or is not differentiable.
    TypeError
        If ``model`` or ``x`` is of another type.
    ImportError
        If rich is missing for the progress bar.

    Warns
    -----
    UserWarning
        If the gradient of some examples is zero at every point of the attacks, so that nothing attacked them.

    References
    ----------
    Madry, Makelov, Schmidt, Tsipras & Vladu, Towards deep learning models resistant to adversarial attacks, ICLR 2018.

    Examples
    --------
    >>> import torch
    >>> from fastdens.analysis import pgd_accuracy
    >>> model = torch.nn.Linear(2, 2, bias=False)
    >>> _ = model.weight.data.copy_(torch.eye(2))
    >>> x, labels = torch.tensor([[1.0, 0.0], [0.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    >>> pgd_accuracy(model, x, labels, epsilon=0.5).robust
    array([ True, False,  True])
    """
    if norm not in _NORMS:
        raise ValueError(f"there is no norm {norm!r}: the nearest names are {suggest(norm, _NORMS)}.")
    epsilon = check_non_negative("epsilon", epsilon)
    if not math.isfinite(epsilon):
        raise ValueError("epsilon is infinite, but the radius of a ball is finite.")
    steps, n_restarts = check_integer("steps", steps, 1), check_integer("n_restarts", n_restarts, 1)
    batch_size = check_integer("batch_size", batch_size, 1)
    random_state = check_integer("random_state", random_state, 0)
    step_size = 2.5 * epsilon / steps if step_size is None else check_non_negative("step_size", step_size)
    if step_size == 0 < epsilon:
        raise ValueError("step_size is 0, but the attack must move: pass a positive one.")
    inputs = as_inputs(x)
    low, high = _checked_bounds(bounds, inputs)
    classifier = Classifier(model, device)
    ball = _Ball(norm, epsilon, *(bound.to(classifier.device, classifier.dtype) for bound in (low, high)))
    clean, robust, stuck = np.zeros((3, len(inputs)), np.bool_)
    # The attack needs gradients, whatever the caller has switched off.
    with classifier.evaluating(gradients=True), torch.inference_mode(False), torch.enable_grad():
        with torch.no_grad():
            n_classes = classifier.first_logits(inputs).shape[1]
        targets = torch.from_numpy(as_labels(labels, len(inputs), n_classes)).to(classifier.device)
        with progress_bar("Attacks", len(inputs), shown=progress) as advance:
            for block in np.split(np.arange(len(inputs)), range(batch_size, len(inputs), batch_size)):
                batch = _Examples(block, inputs[block].to(classifier.device, classifier.dtype), targets[block])
                with torch.no_grad():
                    right = _is_right(classifier(batch.x), batch)
                clean[block] = right.cpu().numpy()
                left = batch.where(right)
                stuck[left.rows] = True
                for restart in range(n_restarts):
                    if epsilon == 0 or not len(left.rows):
                        break
                    starts = ball.random_points(left, random_state, restart)
                    held, still = _attack(classifier, ball, left, starts, steps, step_size)
                    stuck[left.rows] &= still.cpu().numpy()
                    left = left.where(held)
                robust[left.rows] = True
                advance(len(block))
    n_stuck = int((robust & stuck).sum())
    if epsilon > 0 and n_stuck:
        warnings.warn(
            f"the gradient of the model is zero at {n_stuck} of {len(inputs)} examples wherever the attack went: they "
            "count as robust, but nothing attacked them.",
            UserWarning,
            stacklevel=2,
        )
    accuracy = float(robust.mean())
    return PGDAccuracy(accuracy, math.sqrt(accuracy * (1 - accuracy) / len(robust)), robust, clean)


class _Examples(NamedTuple):
    """Some examples: their ``rows`` int64 [B] among all, inputs ``x`` [B, ...] and ``labels`` [B] on the device."""

    rows: NDArray[np.int64]
    x: Tensor
    labels: Tensor

    def where(self, mask: Tensor) -> _Examples:
        """The examples of the mask, bool [B]."""
        return _Examples(self.rows[mask.cpu().numpy()], self.x[mask], self.labels[mask])


@dataclass(frozen=True)
class _Ball:
    """The ball of radius ``epsilon`` around an example in a norm, cut off at the bounds."""

    norm: str
    epsilon: float
    low: Tensor
    high: Tensor

    def random_points(self, examples: _Examples, *key: int) -> Tensor:
        """A uniform point of the ball around each example, projected onto the bounds."""
        moves = torch.empty_like(examples.x)
        for i, move in zip(examples.rows.tolist(), moves, strict=True):
            generator = random_generator(move.device, *key, i)
            if self.norm == "linf":
                move.uniform_(-self.epsilon, self.epsilon, generator=generator)
            else:
                move.normal_(generator=generator)
                radius = torch.rand((), dtype=move.dtype, device=move.device, generator=generator) ** (1 / move.numel())
                move *= self.epsilon * radius / move.norm()
        return self.nearest(examples.x + moves, examples.x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Direction of steepest ascent, of norm 1; zero where the gradient is zero."""
        if self.norm == "linf":
            return gradient.sign()
        # Scaled first: squares of a small gradient would underflow.
        gradient = gradient / _per_example(gradient.abs().flatten(1).amax(1), gradient).clamp_min(_tiny(gradient))
        return gradient / _euclidean(gradient).clamp_min(_tiny(gradient))

    def nearest(self, points: Tensor, centres: Tensor) -> Tensor:
        """Projection of points onto the ball around their centres, then onto the bounds."""
        moves = points - centres
        if self.norm == "linf":
            moves = moves.clamp(-self.epsilon, self.epsilon)
        else:
            moves = moves * (self.epsilon / _euclidean(moves).clamp_min(_tiny(moves))).clamp_max(1)
        # The centre lies within the bounds, so that clamping moves no coordinate away from it.
        return (centres + moves).clamp(self.low, self.high)


def _attack(
    classifier: Classifier, ball: _Ball, examples: _Examples, points: Tensor, steps: int, step_size: float
) -> tuple[Tensor, Tensor]:
    """Projected gradient descent from the points.

    Returns, bool [B], whether the model was right at every point and whether its gradient was zero at every point. An
    example leaves the batch once the model is fooled.
    """
    held = torch.ones(len(points), dtype=torch.bool, device=points.device)
    stuck = held.clone()
    left = torch.arange(len(points), device=points.device)
    for step in range(steps + 1):
        last = step == steps
        with torch.set_grad_enabled(not last):
            points = points.detach().requires_grad_(not last)
            logits = classifier(points)
        right = _is_right(logits, examples)
        held[left[~right]] = False
        if last or not right.any():
            break
        gradient = _loss_gradient(logits, points, examples)[right]
        examples, left, points = examples.where(right), left[right], points.detach()[right]
        stuck[left] &= (gradient == 0).flatten(1).all(1)
        points = ball.nearest(points + step_size * ball.steepest(gradient), examples.x)
    return held, stuck


def _is_right(logits: Tensor, examples: _Examples) -> Tensor:
    """Whether the model gives the label, bool [B]."""
    predicted = predicted_classes(logits)
    if (predicted < 0).any():
        at = int(examples.rows[int(predicted.argmin())])
        raise ValueError(f"the model gives NaN at or near example {at}: repair the model.")
    return predicted == examples.labels


def _loss_gradient(logits: Tensor, points: Tensor, examples: _Examples) -> Tensor:
    """Gradient of ``log sum_{k != y} exp z_k - z_y`` with respect to the points.

    The gradient of the cross entropy has the same direction, but is 1 - p_y times as long and vanishes in rounding
    where the model is confident. No step depends on the length.
    """
    label = examples.labels[:, None]
    loss = logits.scatter(1, label, -math.inf).logsumexp(1) - logits.gather(1, label)[:, 0]
    gradient = torch.autograd.grad(loss.sum(), points, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        raise ValueError(
            "the output of the model has no gradient in its input: remove detach, argmax or no_grad from its forward."
        )
    finite = torch.isfinite(gradient).flatten(1).all(1)
    if not finite.all():
        at = int(examples.rows[int(finite.int().argmin())])
        raise ValueError(f"the gradient of the model is NaN or infinite near example {at}: repair the model.")
    return gradient


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values [B] as [B, 1, ...], which broadcasts with ``like`` [B, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _euclidean(moves: Tensor) -> Tensor:
    """Euclidean norm of each move, [B, 1, ...]."""
    return _per_example(moves.flatten(1).norm(dim=1), moves)


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny


def _checked_bounds(
    bounds: tuple[ArrayLike | Tensor, ArrayLike | Tensor] | None, inputs: Tensor
) -> tuple[Tensor, Tensor]:
    """The bounds as tensors on the device of the inputs; a ValueError if an input lies outside of them."""
    if bounds is None:
        bounds = (-math.inf, math.inf)
    try:
        low, high = (torch.as_tensor(bound, dtype=inputs.dtype, device=inputs.device) for bound in bounds)
        for bound in (low, high):
            bound.expand(inputs.shape[1:])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"bounds must be a pair (low, high) that broadcasts with an example of shape {list(inputs.shape[1:])}: "
            f"{error}."
        ) from None
    if not (low <= high).all():
        raise ValueError("bounds has a low that is not under its high: pass (low, high).")
    slack = _SLACK * (high - low).nan_to_num(posinf=0.0)
    outside = ((inputs < low - slack) | (inputs > high + slack)).flatten(1).any(1)
    if outside.any():
        at = int(outside.int().argmax())
        raise ValueError(
            f"example {at} of x, from {float(inputs[at].min()):.4g} to {float(inputs[at].max()):.4g}, is out of the "
            "bounds: pass bounds in the units of x."
        )
    return low, high

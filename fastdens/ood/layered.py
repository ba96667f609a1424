"""One detector for each layer, and the scores of all layers made one."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.activations import Activations
from fastdens.errors import NotFittedError, check_integer
from fastdens.io.expected import check_tensors
from fastdens.kernels.options import check_choice
from fastdens.labels import Labels, encode, read_labels
from fastdens.ood.base import Detector, SavedDetector
from fastdens.ood.combinations import COMBINATIONS, LogOdds, Standard, fit_log_odds, standard_of
from fastdens.ood.layer_features import Features, matrices_of
from fastdens.ood.mahalanobis import Mahalanobis, RelativeMahalanobis
from fastdens.ood.mixture_density import MixtureDensity
from fastdens.ood.nearest_neighbours import NearestNeighbours
from fastdens.reduction import UncentredSVD

DETECTORS: dict[str, type[Detector]] = {
    detector.__name__: detector for detector in (Mahalanobis, RelativeMahalanobis, MixtureDensity, NearestNeighbours)
}


class LayeredDetector(SavedDetector):
    """A detector for each layer of a network, and their scores combined.

    The scores of each layer are standardised: in standard deviations from their mean over examples in distribution.
    Those must be examples that the detectors have not seen: to its own training examples a detector is nearer than to
    others, the more so the more dimensions a layer has, and the nearest neighbour of a training example is itself.
    ``fit`` takes such examples as ``held_out``; without them it holds back a share of each class.

    Parameters
    ----------
    detector : Detector
        Its parameters; ``fit`` fits a copy for each layer.
    combine : {"mean", "max", "logistic"}
        The mean of the standardised scores of the layers; the largest; or the log-odds of a logistic regression on
        them, for which ``fit`` needs examples that are out of distribution.
    n_components : int or mapping of str to int, optional
        Project a layer on so many of its leading right singular vectors
        (:class:`fastdens.reduction.UncentredSVD`): every layer, or those that are named.
    held_out_share : float
        Share of each class, in (0, 1), to hold back where ``fit`` is given no ``held_out``.
    random_state : int
        Seed of the choice of these.

    Attributes
    ----------
    layers_ : tuple of str
    detectors_ : dict of str to Detector
        By layer.
    projections_ : dict of str to UncentredSVD
        Of the layers that are projected.
    score_means_, score_deviations_ : Tensor
        float64 [L], of the scores of the held-out examples.
    log_odds_ : LogOdds or None
        Coefficients [L] and intercept of the logistic regression.

    References
    ----------
    Lee, Lee, Lee & Shin, A simple unified framework for detecting out-of-distribution samples and adversarial attacks,
    NeurIPS 2018: a logistic regression on the scores of all layers.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> labels = torch.arange(200) % 2
    >>> train = {layer: torch.randn(200, 4) + 5 * labels[:, None] for layer in ("layer3", "layer4")}
    >>> detector = fd.ood.LayeredDetector(fd.ood.Mahalanobis()).fit(train, labels)
    >>> others = {layer: torch.randn(3, 4) + torch.tensor([[0.0], [5.0], [50.0]]) for layer in train}
    >>> detector.score(others).argmax()
    tensor(2)
    """

    layers_: tuple[str, ...]
    detectors_: dict[str, Detector]
    projections_: dict[str, UncentredSVD]
    score_means_: Tensor
    score_deviations_: Tensor
    log_odds_: LogOdds | None

    def __init__(
        self,
        detector: Detector,
        *,
        combine: str = "mean",
        n_components: int | Mapping[str, int] | None = None,
        held_out_share: float = 0.2,
        random_state: int = 0,
    ) -> None:
        if not isinstance(detector, Detector):
            raise TypeError(
                f"detector is {type(detector).__name__}, but it must be one of fd.ood: pass fd.ood.Mahalanobis(), say."
            )
        self.detector = detector
        self.combine = combine
        self.n_components = n_components
        self.held_out_share = held_out_share
        self.random_state = random_state

    def fit(
        self,
        features: Features,
        labels: ArrayLike | Tensor | None = None,
        *,
        held_out: Features | None = None,
        outliers: Features | None = None,
    ) -> Self:
        """Fit a detector to each layer, and the standards of their scores.

        Parameters
        ----------
        features : Activations, or mapping of str to array or Tensor
            Training examples: what :func:`fastdens.activations.extract` returns, or [N, D] for each layer.
        labels : array or Tensor, optional
            [N] labels of any kind; by default those of the activations.
        held_out : Activations or mapping, optional
            Other examples in distribution, of the same layers. All of ``features`` are then training examples.
        outliers : Activations or mapping, optional
            Examples out of distribution, of the same layers, for ``combine="logistic"`` alone.

        Returns
        -------
        LayeredDetector
            Itself.

        Raises
        ------
        ModelError
            If a class of a layer cannot be fitted; the message names both.
        TypeError, ValueError
            If a parameter is invalid, the layers disagree in their examples, there are no labels, the scores of a layer
            do not vary, or outliers are missing or have no use.
        ImportError
            If scikit-learn is missing for ``combine="logistic"``.
        """
        self._check_parameters()
        if (outliers is None) == (self.combine == "logistic"):
            raise ValueError(
                f"combine is {self.combine!r} and outliers are {'missing' if outliers is None else 'given'}: pass "
                "outliers together with combine='logistic', and only then."
            )
        matrices = matrices_of(features, "features")
        for layer in self.n_components if isinstance(self.n_components, Mapping) else ():
            if layer not in matrices:
                raise ValueError(
                    f"n_components names layer {layer!r}, but the features are of {', '.join(map(repr, matrices))}: "
                    "name one of these."
                )
        known = _labels_of(features, labels, len(next(iter(matrices.values()))))
        if held_out is None:
            back = self._held_back(encode(known)[0].cpu())
            held_out = {layer: matrix[back.to(matrix.device)] for layer, matrix in matrices.items()}
            matrices = {layer: matrix[~back.to(matrix.device)] for layer, matrix in matrices.items()}
            known = known[~back.to(known.device)] if isinstance(known, Tensor) else known[~back.numpy()]
        projections, detectors = {}, {}
        for layer, points in matrices.items():
            if (k := self._n_components_of(layer)) is not None:
                if k > min(points.shape):
                    raise ValueError(
                        f"n_components is {k}, but layer {layer!r} has shape {tuple(points.shape)}: it can be at most "
                        f"{min(points.shape)}."
                    )
                projections[layer] = UncentredSVD(k).fit(points)
                points = projections[layer].transform(points)
            detectors[layer] = copy.deepcopy(self.detector).fit(points, known, layer=layer)
        inside = score_layers(held_out, "held_out", detectors, projections)
        standard = self._standard_of(inside, tuple(detectors))
        self.log_odds_ = None
        if outliers is not None:
            outside = score_layers(outliers, "outliers", detectors, projections)
            self.log_odds_ = fit_log_odds(standard(inside), standard(outside))
        self.score_means_, self.score_deviations_ = standard
        self.layers_, self.detectors_, self.projections_ = tuple(detectors), detectors, projections
        return self

    def layer_scores(self, features: Features) -> Tensor:
        """The score of each example in each layer, not standardised.

        Parameters
        ----------
        features : Activations, or mapping of str to array or Tensor
            Of the layers of the fit.

        Returns
        -------
        Tensor
            [N, L], layers in the order of ``layers_``.

        Raises
        ------
        NotFittedError
            Before ``fit``.
        ValueError
            If a layer is missing, the layers disagree in their examples, or features do not suit a detector.
        """
        self._check_fitted()
        return score_layers(features, "features", self.detectors_, self.projections_)

    def score(self, features: Features) -> Tensor:
        """How far out of distribution each example is, by the scores of all layers.

        Parameters
        ----------
        features : Activations, or mapping of str to array or Tensor
            Of the same layers.

        Returns
        -------
        Tensor
            [N], larger is further out.

        Raises
        ------
        NotFittedError, ValueError
            As for :meth:`layer_scores`.
        """
        scores = self.layer_scores(features)
        standardised = Standard(self.score_means_, self.score_deviations_)(scores)
        if self.combine == "mean":
            combined = standardised.mean(1)
        elif self.combine == "max":
            combined = standardised.amax(1)
        else:
            assert self.log_odds_ is not None
            combined = self.log_odds_(standardised)
        return combined.to(scores.dtype)

    def _check_parameters(self) -> None:
        check_choice("combine", self.combine, COMBINATIONS)
        check_integer("random_state", self.random_state, 0)
        named = self.n_components.values() if isinstance(self.n_components, Mapping) else (self.n_components,)
        for value in (value for value in named if value is not None):
            check_integer("n_components", value, 1)
        if not isinstance(self.held_out_share, float) or not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share!r}, but it must be between 0 and 1: 0.2, say.")

    def _check_fitted(self) -> None:
        if not hasattr(self, "score_means_"):
            raise NotFittedError(self, "fit(features, labels)")

    def _n_components_of(self, layer: str) -> int | None:
        return self.n_components.get(layer) if isinstance(self.n_components, Mapping) else self.n_components

    def _held_back(self, codes: Tensor) -> Tensor:
        """Examples to hold back, bool [N]: of each class the share, rounded down, in a random order."""
        generator = torch.Generator(device="cpu").manual_seed(self.random_state)
        order = torch.randperm(len(codes), generator=generator, device="cpu")
        order = order[torch.argsort(codes[order], stable=True)]
        sizes = torch.bincount(codes)
        place = torch.arange(len(codes), device="cpu") - torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        back = torch.zeros(len(codes), dtype=torch.bool, device="cpu")
        back[order] = place < (self.held_out_share * sizes).floor().repeat_interleave(sizes)
        if not bool(back.any()):
            raise ValueError(
                f"no class has enough examples to hold back {self.held_out_share:.0%} of them: pass held_out, or a "
                "larger held_out_share."
            )
        return back

    def _standard_of(self, inside: Tensor, layers: tuple[str, ...]) -> Standard:
        """The standard of the scores of held-out examples; raises if those of a layer do not vary."""
        standard = standard_of(inside)
        for layer, deviation in zip(layers, standard.deviation.tolist(), strict=True):
            if not 0 < deviation < float("inf"):
                raise ValueError(
                    f"the scores of layer {layer!r} have a standard deviation of {deviation:.3g} over {len(inside)} "
                    "held-out examples: hold out more examples, or leave the layer out."
                )
        return standard

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:  # noqa: D102
        self._check_fitted()
        tensors = {"score_means_": self.score_means_, "score_deviations_": self.score_deviations_}
        if self.log_odds_ is not None:
            tensors |= self.log_odds_._asdict()
        detectors, projections = [], {}
        for at, layer in enumerate(self.layers_):
            own, metadata = self.detectors_[layer].get_state()
            detectors.append(metadata)
            tensors |= {f"{at}.detector.{name}": tensor for name, tensor in own.items()}
            if layer in self.projections_:
                own, projection = self.projections_[layer].get_state()
                projections[layer] = projection
                tensors |= {f"{at}.projection.{name}": tensor for name, tensor in own.items()}
        parameters = {name: getattr(self, name) for name in self._parameter_names() if name != "detector"}
        if isinstance(self.n_components, Mapping):
            parameters["n_components"] = dict(self.n_components)
        metadata = {"detector": type(self).__name__, "parameters": parameters, "layers": list(self.layers_)}
        return tensors, {**metadata, "detectors": detectors, "projections": projections}

    @classmethod
    def from_state(  # noqa: D102
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str = "the state"
    ) -> Self:
        try:
            layers, saved, parameters = (metadata[name] for name in ("layers", "detectors", "parameters"))
            projected = dict(metadata["projections"])
            kinds = [DETECTORS[of_layer["detector"]] for of_layer in saved]
            names = dict.fromkeys(map(str, layers))
            if not 0 < len(names) == len(layers) == len(kinds):
                raise ValueError(f"{len(layers)} layers of {len(kinds)} detectors")
        except (LookupError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{where} has no detectors of layers ({reason}): save it again.") from None
        detectors, projections = {}, {}
        for at, (layer, kind) in enumerate(zip(names, kinds, strict=True)):
            of_layer = f"{where}, layer {layer!r},"
            detectors[layer] = kind.from_state(_under(f"{at}.detector.", tensors), saved[at], of_layer)
            if layer in projected:
                own = _under(f"{at}.projection.", tensors)
                projections[layer] = UncentredSVD.from_state(own, projected[layer], of_layer)
        try:
            layered = cls(next(iter(detectors.values())), **parameters)
            layered._check_parameters()
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{where} has no parameters of {cls.__name__} ({reason}): save it again.") from None
        expected = dict.fromkeys(("score_means_", "score_deviations_"), "float L")
        if layered.combine == "logistic":
            expected |= {"coefficients": "float L", "intercept": "float"}
        check_tensors(where, tensors, expected, L=len(detectors))
        layered.score_means_, layered.score_deviations_ = tensors["score_means_"], tensors["score_deviations_"]
        is_logistic = layered.combine == "logistic"
        layered.log_odds_ = LogOdds(tensors["coefficients"], tensors["intercept"]) if is_logistic else None
        layered.layers_, layered.detectors_, layered.projections_ = tuple(detectors), detectors, projections
        return layered


def score_layers(
    features: Features, name: str, detectors: Mapping[str, Detector], projections: Mapping[str, UncentredSVD]
) -> Tensor:
    """Scores [N, L] of the examples by the detector of each layer, projected where there is a projection."""
    scores = []
    for layer, points in matrices_of(features, name, tuple(detectors)).items():
        if layer in projections:
            points = projections[layer].transform(points)
        scores.append(detectors[layer].score(points))
    return torch.stack(scores, 1)


def _labels_of(features: Features, labels: ArrayLike | Tensor | None, n_examples: int) -> Labels:
    if labels is None:
        labels = features.labels if isinstance(features, Activations) else None
    if labels is None:
        raise ValueError("the features come without labels: pass fit(features, labels).")
    return read_labels(labels, n_examples, rows="the features are of {} examples")


def _under(begin: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items() if name.startswith(begin)}

"""Refits of some classes: their models are fitted as parts of the batch, all others are those of the present fit."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.memory import MemoryLimit
from fastdens.mixtures.base import BaseMixtures
from fastdens.mixtures.limited_memory import groups_in_memory
from fastdens.mixtures.parts import check_alike, find_failures, fit_part, join, part_of_fit


class RefittedMixtures(BaseMixtures):
    """Base of the estimators that fit some classes anew."""

    def refit(
        self,
        batch: RaggedBatch,
        classes: Sequence[Hashable],
        *,
        sample_weight: ArrayLike | Tensor | None = None,
        max_memory: MemoryLimit | None = None,
        held_out: RaggedBatch | None = None,
    ) -> Self:
        """Fit the models of some classes anew, and keep all others.

        With the parameters of the fit, the result is that of ``fit(batch)``, bit for bit, if the points of all other
        classes are those that were fitted, in their order.

        Parameters
        ----------
        batch : RaggedBatch
            Points of all classes of the fit, those that have changed and those that have not.
        classes : sequence
            The classes to fit.
        sample_weight, max_memory : optional
            As for ``fit``.
        held_out : RaggedBatch, optional
            Held-out points of all classes, if the fit had some: for samplers only.

        Returns
        -------
        BaseMixtures
            Itself.

        Raises
        ------
        ModelError
            If a model cannot be fitted and ``on_error`` is "raise"; the estimator keeps its fit.
        NotFittedError
            Before ``fit``.
        TypeError, ValueError
            If a class is none of the fit's, the batch has other classes or, where the fit keeps its points, others of
            a class that is not named; if parameters that tell the shapes of the fit have changed; or if the models have
            learned from a stream.

        Warns
        -----
        ConvergenceWarning, ConstantFeatureWarning
            As ``fit``, of any of the models.

        Examples
        --------
        >>> import torch, fastdens as fd
        >>> x, y = torch.randn(300, 4), torch.arange(300) % 3
        >>> gm = fd.GaussianMixtures(max_iter=1, tol=0).fit(fd.RaggedBatch.from_labels(x, y))
        >>> x[y == 1] += 1
        >>> gm = gm.refit(fd.RaggedBatch.from_labels(x, y), classes=[1])
        """
        checked = self._check_refitted(self._weighted(batch, sample_weight))
        changed = self._models_of(classes)
        if held_out is not None and not self.has_chains:
            raise ValueError("held_out is given, which only samplers take: leave it out.")
        groups = groups_in_memory(self, checked, max_memory)
        found = find_failures(self, checked, groups)
        kept = torch.tensor(
            [m for m in range(checked.n_models) if m not in changed and m not in self.failures_],
            dtype=torch.int64,
            device=checked.device,
        )
        self._check_unchanged(checked, kept)
        fits = [part_of_fit(self, checked, kept)] if len(kept) else []
        for begin, end in groups:
            if models := [m for m in range(begin, end) if m in changed and m not in found]:
                numbers = torch.tensor(models, dtype=torch.int64, device=checked.device)
                fits.append(fit_part(self, checked, numbers, held_out=held_out))
        failures = {m: reason for m, reason in found.items() if m in changed}
        failures |= {m: reason for m, reason in self.failures_.items() if m not in changed}
        if not fits:
            raise ValueError("no model of the batch can be fitted: call fit(batch), which says why.")
        check_alike(fits)
        join(self, checked, failures, fits)
        self._warn(checked)
        return self

    def _check_refitted(self, batch: RaggedBatch) -> RaggedBatch:
        """``batch`` if it has the classes of the fit."""
        self._check_fitted()
        if self.classes_ is None:
            raise ValueError("this fit was saved without its classes: call fit(batch).")
        fitted, given = ([str(name) for name in names] for names in (self.classes_, batch.classes))
        for missing in (name for name in self.classes_ if str(name) not in given):
            raise ValueError(
                f"the batch lacks class {missing!r} of the fit: a refit keeps all classes, fit(batch) none."
            )
        for more in (name for name in batch.classes if str(name) not in fitted):
            raise ValueError(f"the batch has class {more!r}, which the fit lacks: call fit(batch).")
        return self._check_models(batch)

    def _models_of(self, classes: Sequence[Hashable]) -> set[int]:
        """The models of some classes."""
        assert self.classes_ is not None
        if isinstance(classes, str) or not hasattr(classes, "__iter__"):
            raise TypeError(f"classes is {classes!r}: pass a list of classes of the fit.")
        model_of = {str(name): m for m, name in enumerate(self.classes_)}
        models = set()
        for name in classes:
            label = name.item() if hasattr(name, "item") else name
            if str(label) not in model_of:
                raise ValueError(f"classes has {label!r}, which is no class of the fit: they are in classes_.")
            models.add(model_of[str(label)])
        if not models:
            raise ValueError("classes is empty: name those that have changed.")
        return models

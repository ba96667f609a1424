"""Models of several layers: a mapping from layer name to the fitted models of its classes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from fastdens.batch import RaggedBatch
from fastdens.io.state_file import write_state

# Makes the fitted estimator of a state, which the text names in messages.
Restore = Callable[[Mapping[str, Tensor], Mapping[str, Any], str], Any]


class ClassLayerModels(Mapping[str, Any]):
    """One fitted estimator for each layer; layers may differ in D.

    Parameters
    ----------
    batches : mapping of str to RaggedBatch
        The points of each layer.
    models : mapping of str to estimator
        The estimator fitted on each of them.

    Examples
    --------
    >>> import torch, fastdens as fd
    >>> labels = torch.arange(300) % 3
    >>> layers = {"layer3": torch.randn(300, 4), "layer4": torch.randn(300, 8)}
    >>> batches = {name: fd.RaggedBatch.from_labels(x, labels, layer=name) for name, x in layers.items()}
    >>> models = fd.ClassLayerModels.fit(fd.GaussianMixtures(2, max_iter=5, tol=0), batches)
    >>> models["layer4"].means_.shape
    torch.Size([3, 2, 8])
    >>> {name: values.shape for name, values in models.map(lambda gm, batch: gm.bic(batch)).items()}
    {'layer3': torch.Size([3]), 'layer4': torch.Size([3])}
    """

    def __init__(self, batches: Mapping[str, RaggedBatch], models: Mapping[str, Any]) -> None:
        self.batches: dict[str, RaggedBatch] = dict(batches)
        self._models = dict(models)

    @classmethod
    def fit(cls, estimator: Any, batches: Mapping[str, RaggedBatch]) -> ClassLayerModels:
        """Fit a copy of ``estimator`` on every layer.

        Parameters
        ----------
        estimator : GaussianMixtures, DirichletProcessMixtures or another
            What to fit; it stays as it is.
        batches : mapping of str to RaggedBatch
            The points of every layer, by its name.

        Returns
        -------
        ClassLayerModels
            A fitted copy of the estimator for every layer.
        """
        return cls(batches, {layer: copy.deepcopy(estimator).fit(batch) for layer, batch in batches.items()})

    def __getitem__(self, layer: str) -> Any:
        if layer not in self._models:
            raise KeyError(f"there is no layer {layer!r}: the layers are {', '.join(map(repr, self._models))}.")
        return self._models[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def get_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The states of the fitted estimators of all layers as one; see :meth:`from_state`.

        Returns
        -------
        (dict of str to Tensor, dict)
            The tensors of all layers, and metadata that JSON can hold.

        Raises
        ------
        NotFittedError
            If one of them is not fitted.
        """
        tensors: dict[str, Tensor] = {}
        layers = []
        for number, (layer, models) in enumerate(self.items()):
            of_layer, metadata = models.get_state()
            tensors |= {f"{number}/{name}": tensor for name, tensor in of_layer.items()}
            layers.append({"layer": layer, "state": metadata})
        return tensors, {"estimator": type(self).__name__, "layers": layers}

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], where: str, restore: Restore
    ) -> ClassLayerModels:
        """The models of a state that :meth:`get_state` returned, without their batches.

        Parameters
        ----------
        tensors, metadata : mapping
            What :meth:`get_state` returned.
            The two parts of the state.
        where : str
            A name for messages, such as that of a file.
        restore : callable
            Makes the estimator of one layer from its tensors, its metadata and a name for messages.

        Returns
        -------
        ClassLayerModels
            The same models.

        Raises
        ------
        ValueError
            If something is missing.
        """
        models = {}
        match metadata:
            case {"layers": [*layers]}:
                pass
            case _:
                raise ValueError(f"{where} has no layers: save the fit again.")
        for number, entry in enumerate(layers):
            match entry:
                case {"layer": str(layer), "state": dict(state)} if layer not in models:
                    prefix = f"{number}/"
                    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                    models[layer] = restore(own, state, f"layer {layer!r} of {where}")
                case _:
                    raise ValueError(f"{where} has no state or name of layer {number}: save the fit again.")
        return cls({}, models)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fits of all layers to one safetensors file; :func:`fastdens.load` reads it.

        The batches are not part of it: ``ClassLayerModels(batches, fd.load(path))`` has both again.

        Parameters
        ----------
        path : path-like
            The file to write.
        overwrite : bool
            Replace a file of that name.

        Raises
        ------
        NotFittedError
            If a layer is not fitted.
        TypeError
            If the name of a layer is no string.
        FileExistsError
            If ``path`` exists and ``overwrite`` is False.
        ImportError
            If safetensors is missing.
        """
        write_state(path, "fit", *self.get_state(), overwrite=overwrite)

    def map(self, function: Callable[[Any, RaggedBatch], Tensor]) -> dict[str, Tensor]:
        """Call a function with the models and the batch of every layer.

        Parameters
        ----------
        function : callable
            Takes ``(models, batch)``, e.g. ``lambda gm, batch: gm.score_samples(batch)``.

        Returns
        -------
        dict of str to Tensor
            What it returned, by layer.

        Raises
        ------
        KeyError
            If the points of a layer are missing, as of models read from a file.
        """
        for layer in (layer for layer in self if layer not in self.batches):
            raise KeyError(
                f"the points of layer {layer!r} are missing: pass the batches of all layers, as in "
                "ClassLayerModels(batches, models)."
            )
        return {layer: function(self._models[layer], self.batches[layer]) for layer in self}

"""A recipe: the network and the hyperparameters of its training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastdens.kernels.options import check_choice

DTYPES = ("float32", "bfloat16")
SCHEDULES = ("cosine", "linear")
AUGMENTATIONS = ("affine", "crop_flip")
STEMS = ("auto", "stride1", "stride3")


@dataclass(frozen=True)
class Recipe:
    """The network and the hyperparameters of its training.

    Attributes
    ----------
    network : str
        A name of :func:`fastdens.training.build_network`.
    width : int
        Channels of the network's first stage, where its name does not fix them.
    epochs, batch_size : int
    learning_rate : float
        The maximum of the one-cycle schedule.
    schedule : {"cosine", "linear"}
        The cycle, see :func:`fastdens.training.train`.
    weight_decay : float
    noise : float
        Standard deviation of the Gaussian noise added to the training images, for pixels between 0 and 1, whatever the
        images were standardized by.
    augment : bool
        Change each image a little, differently each epoch.
    augmentation : {"affine", "crop_flip"}
        How: rotate, scale and shift it; or shift it and mirror it.
    zero_init : bool
        Let each residual block start as the identity: the scale of its last batch norm is zero.
    stem : {"auto", "stride1", "stride3"}
        The first convolution of a ResNet for small images, see :func:`fastdens.training.build_network`.
    dtype : {"float32", "bfloat16"}
        "bfloat16" trains with automatic mixed precision.
    allow_code : bool
        Run the Python code that ``network`` names, where it is FILE.py:FUNCTION or MODULE:FUNCTION. No file of a run
        has this permission in it.

    Raises
    ------
    ValueError
        If a number is out of range or a name is none of those above.
    """

    network: str = "resnet18"
    width: int = 16
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    noise: float = 0.0
    augment: bool = True
    dtype: str = "float32"
    schedule: str = "cosine"
    augmentation: str = "affine"
    zero_init: bool = False
    stem: str = "auto"
    allow_code: bool = False

    def __post_init__(self) -> None:
        check_training(
            epochs=self.epochs,
            batch_size=self.batch_size,
            noise=self.noise,
            dtype=self.dtype,
            schedule=self.schedule,
            augmentation=self.augmentation,
        )
        check_choice("stem", self.stem, STEMS)


def check_training(
    *, epochs: int, batch_size: int, noise: float | Tensor, dtype: str, schedule: str, augmentation: str
) -> None:
    """Refuse hyperparameters that :func:`fastdens.training.train` cannot use.

    Raises
    ------
    ValueError
        If a number is out of range, or there is no such dtype, schedule or augmentation.
    """
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise ValueError(f"{name} is {value}, but training needs {least} or more: pass a larger number.")
    deviations = torch.as_tensor(noise, device="cpu")
    if not bool((deviations.isfinite() & (deviations >= 0)).all()):
        raise ValueError(f"noise is {noise}, but it is a standard deviation: pass 0 or a positive number.")
    check_choice("dtype", dtype, DTYPES)
    check_choice("schedule", schedule, SCHEDULES)
    check_choice("augmentation", augmentation, AUGMENTATIONS)

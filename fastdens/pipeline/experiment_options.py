"""Options of the images, the network and its training, and of what is extracted from it.

They are those of :mod:`fastdens.pipeline.experiment`; :mod:`fastdens.pipeline.options` has the others.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastdens.pipeline.options import OptionError, Options, option

Pooling = Literal["average", "max"]
Tokens = Literal["all", "class", "patches"]


@dataclass(frozen=True)
class ImageOptions(Options):
    """Images to train on, and labels to flip."""

    dataset: str = "anagrams"
    """anagrams, digits, glyphs100, a data set of torchvision (CIFAR100, ...), or a folder of images: train/ and test/
    or val/ with one folder per class, one folder per class, or that of Mini-ImageNet, in files or pickles."""

    data_root: Path = Path("data")
    """Folder with the files of a torchvision data set."""

    image_size: int | None = option(None, at_least=1)
    """Height and width to resize images to; by default 16 for anagrams and digits, 32 for glyphs100, and as they
    are for others."""

    stream: bool | None = None
    """Leave images in their files and decode them when they are needed, again in each epoch; by default where they
    would take more than a quarter of the memory. The results are the same."""

    workers: int | None = option(None, at_least=0)
    """Processes that decode streamed images for each network; by default one for each thread of torch, at most 8."""

    flip: float = option(0.0, at_least=0, less_than=1)
    """Share of the training labels to flip at random: examples that a network can fit only by memorizing them."""

    flip_redraw: bool = False
    """Draw each label anew with the probability --flip, so that it may stay as it was, the paper's random labels."""

    long_tailed: tuple[str, ...] | None = None
    """Classes of anagrams or glyphs100 whose images come from a long tail, or their share, such as 0.1, or 0 for none;
    by default two fifths of anagrams and a fifth of glyphs100."""

    images_per_class: int | None = option(None, at_least=1)
    """Training images of each class of glyphs100; by default 500."""

    examples: Path | None = None
    """JSON list of the training examples to take, counted from 0; by default all."""

    label_list: Path | None = None
    """JSON list of a label for each training example, in place of the true ones."""

    allow_pickle: bool = False
    """Read pickles of arrays (train.pickle of Mini-ImageNet, Python objects in --memorization), by a reader that makes
    arrays, numbers and text of them and runs nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_list is not None and self.flip:
            raise OptionError(
                "label_list has the labels and flip would change them: leave one of the two out.", "label_list", "flip"
            )


@dataclass(frozen=True)
class ExtractionOptions(Options):
    """Which layers of a network are analyzed, and how one vector of an example is made of what a layer puts out."""

    layers: tuple[str, ...] | None = None
    """Modules of the network, or files of --activations, in this order; by default the stages of a ResNet, or four
    equally spaced blocks of a ViT or MLP-Mixer."""

    pooling: Pooling = "average"
    """Average or maximum over the positions of an image, or over tokens. With --activations, which files to read of
    those called avg_pooling_LAYER_acts.npy and max_pooling_LAYER_acts.npy."""

    tokens: Tokens = "all"
    """Tokens of a ViT or MLP-Mixer to pool: all, the class token alone, or those of the patches."""

    noise_images: int = option(0, at_least=0)
    """Images of Gaussian noise to show to the network too, to see whether the densities tell them apart."""


@dataclass(frozen=True)
class NetworkOptions(Options):
    """A network and how it is trained; the fields are those of :class:`fastdens.training.runs.Recipe`."""

    network: str = "resnet18"
    """resnet18 to resnet101 with a stem for small images; torchvision/NAME; timm/NAME; or, with --allow-code,
    FILE.py:FUNCTION or MODULE:FUNCTION that takes the number of classes."""

    allow_code: bool = False
    """Run the Python code that --network names, with all that you may do."""

    stem: Literal["auto", "stride1", "stride3"] = "auto"
    """First convolution of resnet18 to resnet101, 3 x 3: of stride 1, for CIFAR (stride1), or of stride 3, which makes
    32 x 32 of Mini-ImageNet's 84 x 84 (stride3); auto is the latter for images over 64 pixels."""

    zero_init: bool = False
    """Let each residual block start as the identity: the scale of its last batch norm is zero."""

    width: int = option(64, at_least=1)
    """Channels of the first stage."""

    epochs: int = option(100, at_least=1)
    """Passes over the training images."""

    augment: bool = True
    """Change each training image a little, differently each epoch. (The demonstrations do not: their networks could not
    memorize in so few epochs.)"""

    augmentation: Literal["affine", "crop_flip"] = "affine"
    """How to change them: rotate, scale and shift (affine); or shift by up to an eighth and mirror (crop_flip), the
    paper's."""

    learning_rate: float = option(0.1, more_than=0, less_than=math.inf)
    """Largest learning rate of the cycle; the paper's is 0.4, for batches of 512."""

    schedule: Literal["cosine", "linear"] = "cosine"
    """Cycle of the learning rate: half cosines, up in three tenths of the steps (cosine); or straight lines from and to
    1e-6, up in 15% (linear), the paper's."""

    weight_decay: float = option(5e-4, at_least=0, less_than=math.inf)
    """Factor of the squares of the weights in the loss; the paper's is 1e-6."""

    batch_size: int = option(64, at_least=1)
    """Images in a training step."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the training; bfloat16 is mixed precision, which is faster."""

"""Arguments of the commands, what they mean and what they are by default."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """The command line of ``fastdens``."""
    root = argparse.ArgumentParser(prog="fastdens", description="Densities of the classes of a network, by layer.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, add_arguments, what in (
        ("analyze", _add_analyze, "fit a density to every class at every layer of a network, write a report"),
        ("memorization", _add_memorization, "train many networks on shares of the images, write memorization scores"),
    ):
        add_arguments(commands.add_parser(name, help=what, description=what, formatter_class=_HelpFormatter))
    return root


def _add_images(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("images").add_argument
    add(
        "--dataset",
        help="digits, glyphs100, a data set of torchvision (CIFAR100, ...), or a folder of images: train/ and test/ or "
        "val/ with one folder a class, one folder a class, or Mini-ImageNet's (default: digits)",
    )
    add("--data-root", type=Path, default=Path("data"), help="where the files of a torchvision data set are")
    add("--image-size", type=_positive, help="resize images to this height and width (default: 16 for digits)")
    add(
        "--flip",
        type=_share,
        help="share of the training labels to flip at random, so that memorized examples are known (default: 0.1 for "
        "digits and glyphs100, else 0)",
    )
    add(
        "--long-tailed",
        nargs="+",
        metavar="CLASS",
        help="(glyphs100) classes whose images come from a long tail, or their share, such as 0.1 (default: a fifth)",
    )


def _add_network(command: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = command.add_argument_group("network")
    add = group.add_argument
    add(
        "--network",
        help="resnet18 to resnet101 with the stem for small images; torchvision/NAME; timm/NAME; or FILE.py:FUNCTION "
        "that takes the number of classes (default: resnet18)",
    )
    add(
        "--width",
        type=_positive,
        help="channels of the first stage (default: 64; 16 for digits; 8 for glyphs100 without a GPU)",
    )
    add(
        "--epochs",
        type=_positive,
        help="passes over the training images (default: 100; 12 for digits; 5 for glyphs100, on a GPU 30)",
    )
    add(
        "--augment",
        action=argparse.BooleanOptionalAction,
        help="turn, scale and move each training image a little, each time otherwise (default: yes; no for digits and "
        "glyphs100, whose networks could not memorize in few epochs else)",
    )
    return group


def _add_machine(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("machine").add_argument
    add("--seed", type=int, default=0, help="of everything that is drawn at random")
    add("--device", help="e.g. cuda (default: cuda where there is one)")
    add(
        "--processes",
        type=_positive,
        help="processes to train networks in; others may be started beside on the same --runs (default: 1, for digits "
        "and glyphs100 2)",
    )


def _add_analyze(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("activations, in place of images and a network").add_argument
    add("--activations", type=Path, help="folder with one .npy [N, D] a layer and labels.npy, of the training examples")
    add("--test-activations", type=Path, help="the same of test examples")
    _add_images(command)
    network = _add_network(command)
    add = network.add_argument
    add("--weights", type=Path, help="file with weights of the network (.pt, .pth, .safetensors): it is not trained")
    add("--layers", nargs="+", metavar="NAME", help="modules of the network, or files of --activations, in this order")
    add(
        "--seeds",
        type=_positive,
        help="networks to train, to compare their groups (default: 1; digits, glyphs100: 2)",
    )
    add = command.add_argument_group("densities").add_argument
    add(
        "--dimensions",
        type=_positive,
        nargs="+",
        metavar="D",
        help="dimensions to project every layer, or each, to (default: 16 for the first half of the layers, else 64; "
        "less where a class has under 8 examples for each)",
    )
    add(
        "--density",
        choices=["dp", "gmm"],
        default="dp",
        help="Dirichlet-process mixtures by collapsed Gibbs sampling, or Gaussian mixtures by EM",
    )
    add("--chains", type=_positive, help="(dp) chains a class (default: 4, for glyphs100 2)")
    add("--sweeps", type=_positive, help="(dp) sweeps a chain, the last fifth of which are kept from (default: 400)")
    add("--thin", type=_positive, help="(dp) sweeps from one kept draw to the next (default: 4, for glyphs100 16)")
    add("--components", type=_positive, help="(gmm) Gaussians a class (default: the number up to 6 of least total BIC)")
    add("--neighbours", type=_positive, default=10, help="nearest neighbours whose mean distance is taken")
    add(
        "--entropy-draws",
        type=_at_least_two,
        help="draws a class for the relative entropy (default: 100000; for digits and glyphs100 2000)",
    )
    add(
        "--divergence-draws",
        type=_at_least_two,
        help="draws a class for the divergences of classes (default: 10000; for digits and glyphs100 200)",
    )
    add = command.add_argument_group("memorization").add_argument
    add("--memorization", type=Path, metavar="FILE", help="scores: .npz with tr_mem, or .npy, one a training example")
    add(
        "--memorization-networks",
        type=_number,
        metavar="N",
        help="train N networks on random subsets to estimate scores (default: 0; 16 for digits, 6 for glyphs100, on a "
        "GPU 40)",
    )
    add("--memorization-epochs", type=_positive, help="their epochs (default: --epochs; 3 for glyphs100)")
    add("--memorization-share", type=_share, help="share of the images each sees (default: 0.7; 0.5 for glyphs100)")
    add = command.add_argument_group("robustness").add_argument
    add(
        "--bins",
        type=_number,
        help="density bins for each of which a network is trained without it (default: 0; 4 for digits and glyphs100)",
    )
    add("--bin-epochs", type=_positive, help="their epochs (default: --epochs; 3 for glyphs100)")
    add("--sigma", type=_positive_float, default=0.5, help="noise of the smoothing, pixels being from 0 to 1")
    add("--epsilon", type=_positive_float, default=0.5, help="L2 radius of the attack, pixels being from 0 to 1")
    add("--certified-examples", type=_positive, help="examples to certify and attack in each bin (default: 100)")
    add("--certificate-draws", type=_positive, help="draws of noise (default: 100000; the demonstrations 1000)")
    _add_machine(command)
    add = command.add_argument_group("files").add_argument
    add("--runs", type=Path, help="folder of trained networks, which are not trained again (default: OUTPUT/runs)")
    add("--output", type=Path, default=Path("report"), help="folder for report.html and what belongs to it")
    add("--overwrite", action="store_true", help="replace an earlier report in that folder")


def _add_memorization(command: argparse.ArgumentParser) -> None:
    _add_images(command)
    add = _add_network(command).add_argument
    add("--batch-size", type=_positive, default=64, help="images a step of training")
    add(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the training; bfloat16 is mixed precision, which is faster",
    )
    add("--networks", type=_positive, default=40, help="networks to train; more can be asked for later")
    add("--share", type=_share, default=0.7, help="share of the training images that each network sees")
    _add_machine(command)
    add = command.add_argument_group("files").add_argument
    add("--runs", type=Path, default=Path("runs"), help="folder of trained networks, which are not trained again")
    add("--output", type=Path, default=Path("memorization.npz"), help="file for tr_mem, tr_labels and standard errors")
    add("--overwrite", action="store_true", help="replace an earlier file of scores")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: it must be at least 0 and less than 1")
    return value


def _at_least(text: str, lowest: int) -> int:
    value = int(text)
    if value < lowest:
        raise argparse.ArgumentTypeError(f"{text} must be at least {lowest}")
    return value


def _number(text: str) -> int:
    return _at_least(text, 0)


def _positive(text: str) -> int:
    return _at_least(text, 1)


def _at_least_two(text: str) -> int:
    return _at_least(text, 2)


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be positive")
    return value


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are shown once, and not where the help says them or there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)

"""The command ``fastdens``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share: it must be at least 0 and less than 1")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


class _DefaultsHelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults are shown once, and not where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastdens", description="Densities of the classes of a network, by layer.")
    commands = parser.add_subparsers(dest="command", required=True)
    analyze = commands.add_parser(
        "analyze",
        help="train a network, fit a density to every class at every stage, write a report",
        formatter_class=_DefaultsHelpFormatter,
    )
    add = analyze.add_argument
    add(
        "--dataset",
        default="digits",
        help="digits, the name of a torchvision data set, or a folder with train/ and test/ of one folder a class",
    )
    add("--data-root", type=Path, default=Path("data"), help="where the files of a torchvision data set are")
    add("--image-size", type=_positive, help="resize images to this height and width (default: 16 for digits)")
    add("--network", default="resnet18", help="resnet18 or resnet50, with the stem for small images")
    add("--width", type=_positive, default=16, help="channels of the first stage; 64 is the full network")
    add("--epochs", type=_positive, default=20, help="passes over the training images")
    add("--flip", type=_share, default=0.1, help="share of the training labels to flip at random")
    add(
        "--dimensions",
        type=_positive,
        nargs=4,
        metavar="D",
        help="dimensions to project each stage to (default: 16 16 64 64, less where a class has under 8 examples for "
        "each)",
    )
    add(
        "--density",
        choices=["dp", "gmm"],
        default="dp",
        help="Dirichlet-process mixtures by collapsed Gibbs sampling, or Gaussian mixtures by EM",
    )
    add("--chains", type=_positive, help="(dp) chains a class (default: 4)")
    add("--sweeps", type=_positive, help="(dp) sweeps a chain, a fifth of which are kept from (default: 400)")
    add("--components", type=_positive, help="(gmm) Gaussians a class (default: the number up to 6 of least total BIC)")
    add("--seed", type=int, default=0, help="of the division of images, the flips, the training and the fits")
    add("--device", help="e.g. cuda (default: cuda where there is one)")
    add("--output", type=Path, default=Path("report"), help="folder for report.html and what belongs to it")
    add("--overwrite", action="store_true", help="replace an earlier report in that folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = vars(_parser().parse_args(arguments))
    options.pop("command")
    try:
        from fastdens.cli.analyze import AnalyzeOptions, analyze

        analyze(AnalyzeOptions(**options))
    except (ValueError, OSError, ImportError) as error:
        print(f"fastdens: {error}", file=sys.stderr)
        return 1
    return 0

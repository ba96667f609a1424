"""Which images are no digits? Detectors on the layers of a small network, beside those of pytorch-ood.

A network learns scikit-learn's digits; letters and signs in the fonts of matplotlib, of the same size and ink, are out
of distribution. Every detector sees the same features; those of pytorch-ood are left out where it is not installed.

python examples/out_of_distribution.py [--seed 1]
"""

import argparse
import importlib.util
import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from fastdens.training.datasets.digits import load_digits
from fastdens.training.datasets.glyph_images import FONTS, GlyphRenderer
from fastdens.training.datasets.glyphs import CHARACTERS

LAYERS = ["first", "second", "third", "last"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--seed", type=int, default=0, help="of the network and of the split of the digits")
parser.add_argument("--epochs", type=int, default=15, help="of training")
options = parser.parse_args()


def glyphs(size: int = 8) -> torch.Tensor:
    """Characters that are no digits in all fonts that have them, [N, 1, size, size], with margins like the digits'."""
    renderer = GlyphRenderer(4 * size)
    masks = [renderer(c, f) for c in CHARACTERS if not c.isdigit() for f in FONTS if f in renderer.fonts_with(c)]
    ink = torch.stack(masks)[:, None].float() / 255
    margin = ink.shape[-1] // 6
    return F.interpolate(ink[..., margin:-margin, margin:-margin], (size, size), mode="area")


class Network(nn.Module):
    """Three convolutions and a layer of 64 features before the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.ReLU())
        self.third = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU())
        self.classes = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, 10] of images [B, 1, 8, 8]."""
        return self.classes(self.last(self.third(self.second(self.first(x)))))


torch.manual_seed(options.seed)
digits, others = load_digits(8, options.seed), glyphs()
network = Network()
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
for _ in range(options.epochs):
    for rows in torch.randperm(len(digits.train.images)).split(64):
        optimizer.zero_grad()
        F.cross_entropy(network(digits.train.images[rows]), digits.train.labels[rows]).backward()
        optimizer.step()


def activations(images: torch.Tensor, labels: torch.Tensor | None = None) -> fd.activations.Activations:
    """Features of every layer, averaged over positions."""
    data = TensorDataset(images) if labels is None else TensorDataset(images, labels)
    return fd.activations.extract(network, DataLoader(data, batch_size=512), LAYERS, progress=False)


train = activations(digits.train.images, digits.train.labels)
test, outside = activations(digits.test.images, digits.test.labels), activations(others)
with torch.no_grad():
    accuracy = (network(digits.test.images).argmax(1) == digits.test.labels).double().mean()
print(f"{len(digits.train.images)} digits to train, {len(digits.test.images)} to test: {accuracy:.1%} right;", end=" ")
print(f"{len(others)} other characters")

detectors = {
    "Mahalanobis": fd.ood.Mahalanobis(),
    "relative Mahalanobis": fd.ood.RelativeMahalanobis(),
    "a Gaussian a class": fd.ood.MixtureDensity(fd.GaussianMixtures(1)),
    "4 Gaussians a class": fd.ood.MixtureDensity(fd.GaussianMixtures(4, covariance_type="tied")),
    "Dirichlet process": fd.ood.MixtureDensity(fd.DirichletProcessMixtures("vb")),
    "50th neighbour": fd.ood.NearestNeighbours(50),
}


def report(name: str, where: str, fit, score, features) -> None:
    """Fit to the training features, score the others, print a row of the table."""
    start = time.perf_counter()
    fit(*features[0])
    scores = [score(x) for x in features[1:]]
    seconds = time.perf_counter() - start
    found = fd.ood.evaluate(*scores)
    print(
        f"{name:34}{where:14}{found.auroc:8.2%} ± {found.auroc_standard_error:.2%}"
        f"{found.false_positive_rate:9.1%}{seconds:9.3f}"
    )


last = ((train.features["last"], train.labels), test.features["last"], outside.features["last"])
# Half of the features are constant in a class, and some mixtures of few points converge slowly: both are known.
warnings.simplefilter("ignore", fd.ConstantFeatureWarning)
warnings.simplefilter("ignore", fd.ConvergenceWarning)
# Compiled code is loaded, or made, before the clock runs.
for detector in detectors.values():
    detector.fit(*last[0]).score(last[1])

print(f"{'detector':34}{'layers':14}{'AUROC':>16}{'FPR95':>9}{'seconds':>9}")
for name, detector in detectors.items():
    report(name, "last", detector.fit, detector.score, last)
    together = fd.ood.LayeredDetector(detector)
    report(name, "mean of all", together.fit, together.score, ((train,), test, outside))
    largest = fd.ood.LayeredDetector(detector, combine="max")
    report(name, "max of all", largest.fit, largest.score, ((train,), test, outside))

if importlib.util.find_spec("pytorch_ood"):
    from pytorch_ood.detector import GMM, KNN, RMD, Mahalanobis

    for peer in (Mahalanobis(None), RMD(None), GMM(None), KNN(None, k=50)):
        report(f"pytorch-ood's {type(peer).__name__}", "last", peer.fit_features, peer.predict_features, last)

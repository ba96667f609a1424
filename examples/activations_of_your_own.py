"""The analysis of activations that you have: a small network on scikit-learn's digits, from its layers to the report.

python examples/activations_of_your_own.py [--output your_report]
"""

import argparse

import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fastdens as fd
from fastdens.analysis.figures import plot_class_log_density
from fastdens.pipeline import AnalysisData, AnalysisOptions, analyze
from fastdens.report import write_report

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="your_report", help="folder for the report")
parser.add_argument("--sweeps", type=int, default=200, help="Gibbs sweeps of each chain")
options = parser.parse_args()

# A network of yours, trained somehow.
torch.manual_seed(0)
images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
images = images.float() / 16
model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(100):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

# Its activations, layer by layer; a DataLoader of anything that the model takes will do.
loader = DataLoader(TensorDataset(images, labels), batch_size=256)
activations = fd.activations.extract(model, loader, layers=["1", "3"], progress=False)

# The analysis, one figure of it on axes of yours, and the report.
data = AnalysisData.from_activations(activations, name="digits")
analysis = analyze(
    data, AnalysisOptions(dimensions=(8,), sweeps=options.sweeps, entropy_draws=2000, divergence_draws=200)
)
layer = analysis.layers[-1]
figure = Figure(figsize=(7, 4), layout="constrained")
plot_class_log_density(figure.subplots(), layer.classes, layer.modes, analysis.examples.class_names)
page = write_report(analysis, options.output)
figure.savefig(page.parent / "last_layer.png", dpi=150)
print(f"{layer.name}: groups of classes: {layer.modes.n_groups}; the report: {page}")

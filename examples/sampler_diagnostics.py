"""Dirichlet-process mixtures by Gibbs sampling, and whether to believe them: agreement of chains, moves, traces.

python examples/sampler_diagnostics.py [--output traces.png]
"""

import argparse
import warnings

import torch
from matplotlib.figure import Figure

import fastdens as fd
from fastdens.analysis.figures import plot_trace

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--output", default="traces.png", help="file for the traces of the class whose chains differ most")
options = parser.parse_args()

# Ten classes of three clusters each; those of a class lie close together where its number is small.
generator = torch.Generator().manual_seed(0)
labels = torch.arange(3_000) % 10
clusters = torch.randint(3, (3_000,), generator=generator)
centres = torch.randn(10, 3, 4, generator=generator) * torch.linspace(0.5, 5, 10)[:, None, None]
points = centres[labels, clusters] + torch.randn(3_000, 4, generator=generator)

batch = fd.RaggedBatch.from_labels(points, labels)
dp = fd.DirichletProcessMixtures(n_sweeps=400, burn_in=200, thin=2, n_chains=4, progress=False)
with warnings.catch_warnings():
    # Chains that disagree are named in a warning; convergence_ says the same, and more.
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    dp.fit(batch)

convergence, moves = dp.convergence_, dp.split_merge_.sum(1)
print("class  clusters  in the best partition  R-hat  effective draws  splits accepted  merges accepted")
for c in range(batch.n_models):
    best = len(dp.partition(c).labels.unique())
    splits, merges = moves[c, 1] / moves[c, 0], moves[c, 3] / moves[c, 2]
    print(
        f"{c:5d}  {dp.n_components_[c].double().mean():8.2f}  {best:21d}  {convergence.rhat[c]:5.2f}"
        f"  {convergence.effective_sample_size[c]:15.0f}  {splits:15.1%}  {merges:15.1%}"
    )
print(convergence.summary([f"class {c}" for c in range(batch.n_models)]))

worst = int(convergence.rhat.argmax())
figure = Figure(figsize=(7, 3), layout="constrained")
plot_trace(figure.subplots(), dp.log_joint_[worst], f"log-joint of class {worst} (nats)")
figure.savefig(options.output, dpi=150)
print(f"Traces of class {worst}, whose chains differ most: {options.output}")

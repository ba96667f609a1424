"""Dirichlet-process mixtures by Gibbs sampling, and whether to believe them: R-hat, effective sample size, traces.

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
    # Chains that disagree are named in a warning; the table below says the same of every class.
    warnings.simplefilter("ignore", fd.ConvergenceWarning)
    dp.fit(batch)

print("class  clusters  R-hat  effective sample size")
for c in range(batch.n_models):
    counts = dp.n_components_[c].double()
    print(f"{c:5d}  {counts.mean():8.2f}  {dp.rhat_[c]:5.2f}  {dp.effective_sample_size_[c]:21.0f}")

worst = int(dp.rhat_.argmax())
figure = Figure(figsize=(7, 3), layout="constrained")
plot_trace(figure.subplots(), dp.log_joint_[worst], f"log-joint of class {worst} (nats)")
figure.savefig(options.output, dpi=150)
print(f"Traces of class {worst}, whose chains differ most: {options.output}")

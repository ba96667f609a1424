"""A Gaussian mixture for each of a hundred classes at once: fit, score, classify.

python examples/mixtures_in_ten_lines.py
"""

import torch

import fastdens as fd

generator = torch.Generator().manual_seed(0)
labels = torch.arange(20_000) % 100
points = torch.randn(20_000, 16, generator=generator) + torch.randn(100, 16, generator=generator)[labels]

batch = fd.RaggedBatch.from_labels(points, labels)
mixtures = fd.GaussianMixtures(n_components=2, covariance_type="diag").fit(batch)

log_density = mixtures.score_samples(batch)  # [20000], each point under the mixture of its class
log_prob = mixtures.log_prob(points)  # [20000, 100], each point under every mixture
accuracy = (log_prob.argmax(1) == labels).double().mean()
print(f"{batch.n_models} mixtures, mean log-density {log_density.mean():.2f} nats, accuracy {accuracy:.1%}")

"""Mahalanobis scores by pytorch-ood, fit included: python scores_pytorch_ood.py rows/scores-paper-64."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pytorch_ood.detector import Mahalanobis

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
points = torch.from_numpy(np.load(folder / "points.npy")).flatten(0, 1)
labels = torch.arange(case["n_models"]).repeat_interleave(case["n_points"])
queries = torch.from_numpy(np.load(folder / "queries.npy"))
Mahalanobis(None).fit_features(points, labels).predict_features(queries[:1])
begin = time.perf_counter()
scores = Mahalanobis(None).fit_features(points, labels).predict_features(queries)
seconds = time.perf_counter() - begin
print(f"{seconds:.3g} s for {len(queries)} queries")
# Its covariance is a sum over the points, and its score half of a square.
print(f"{float(2 * len(points) * scores.double().mean()):.5f}")

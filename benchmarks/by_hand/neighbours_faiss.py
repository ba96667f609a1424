"""Exact neighbours by faiss: python neighbours_faiss.py rows/neighbours-paper-64."""

import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np

folder = Path(sys.argv[1])
case = json.loads((folder / "case.json").read_text())
points = np.load(folder / "points.npy").reshape(-1, case["n_features"])
queries = np.load(folder / "queries.npy")
index = faiss.IndexFlatL2(case["n_features"])
index.add(points)
index.search(queries[:1], case["n_iter"])
begin = time.perf_counter()
squared = index.search(queries, case["n_iter"])[0]
seconds = time.perf_counter() - begin
print(f"{seconds:.3g} s for {len(queries)} queries")
print(f"{np.sqrt(squared[:, -1].astype(float)).mean():.5f}")

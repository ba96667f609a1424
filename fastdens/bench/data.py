"""The data of rows as files, so that anybody can compute a row again by other means."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastdens.bench.rows import Row, make_case
from fastdens.io.atomic import atomic_write


def write_data(rows: Iterable[Row], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a folder for each row: ``points.npy`` and, as far as the row has them, the rest of its case.

    ``weights.npy``, ``means.npy`` and ``covariances.npy`` [M, K, D, D] are the start, or the densities of operations
    on densities; ``labels.npy`` [M, N] that of sweeps and variational inference; ``queries.npy`` [Q, D]. ``case.json``
    has the operation, its variant, the sizes and the number of iterations.

    Raises
    ------
    FileExistsError
        If the folder of a row exists and ``overwrite`` is False.
    """
    return [_write(row, folder / row.name.replace("/", "-"), overwrite) for row in rows]


def _write(row: Row, folder: Path, overwrite: bool) -> Path:
    case = make_case(row)
    start = {} if case.start is None else case.start._asdict()
    arrays = {"points": case.points, **start, "labels": case.labels, "queries": case.queries}
    about = {"operation": row.operation, "variant": row.variant, "n_iter": row.n_iter, **case.problem._asdict()}
    with atomic_write(folder, overwrite=overwrite) as partial:
        partial.mkdir()
        (partial / "case.json").write_text(json.dumps(about, indent=1) + "\n")
        for name, array in arrays.items():
            if array is not None:
                np.save(partial / f"{name}.npy", array.numpy())
    return folder

"""UncentredSVD against numpy's SVD, on tall, wide and ill-conditioned matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

import fastdens as fd


def decaying(rng, n, d, ratio):
    """A matrix whose singular values fall by a constant ratio, down to the rounding of float64."""
    k = min(n, d)
    u, v = np.linalg.qr(rng.normal(size=(n, k)))[0], np.linalg.qr(rng.normal(size=(d, k)))[0]
    return 100 * (u * ratio ** np.arange(k)) @ v.T


@pytest.mark.parametrize("shape", [(2000, 30), (30, 2000), (64, 64), (1, 5), (5, 1), (70_001, 65)])
@pytest.mark.parametrize("kind", ["offset", "decaying"])
def test_subspace_is_that_of_numpy(rng, shape, kind):
    n, d = shape
    x = rng.normal(size=shape) @ np.diag(np.linspace(3, 1, d)) + 2 if kind == "offset" else decaying(rng, n, d, 0.5)
    k = min(n, d, 20)
    svd = fd.reduction.UncentredSVD(k).fit(x)
    _, values, vectors = np.linalg.svd(x, full_matrices=False)
    assert subspace_angles(svd.components_.numpy().T, vectors[:k].T).max() < 1e-5
    np.testing.assert_allclose(svd.singular_values_, values[:k], rtol=1e-6, atol=1e-12 * values[0])
    np.testing.assert_allclose(svd.explained_energy_ratio_, values[:k] ** 2 / (values**2).sum(), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(svd.components_ @ svd.components_.T, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(svd.transform(x), x @ svd.components_.numpy().T, atol=1e-9 * values[0])


def test_float32_is_the_subspace_of_the_same_numbers(rng):
    x = (np.maximum(rng.normal(size=(3000, 128)), 0) @ rng.normal(size=(128, 128))).astype(np.float32)
    svd = fd.reduction.UncentredSVD(16).fit(x)
    vectors = np.linalg.svd(x.astype(np.float64), full_matrices=False)[2]
    assert svd.components_.dtype == torch.float32
    assert subspace_angles(svd.components_.double().numpy().T, vectors[:16].T).max() < 1e-5


def test_all_zero_and_rank_deficient(rng):
    zero = fd.reduction.UncentredSVD(2).fit(np.zeros((9, 4)))
    assert float(zero.explained_energy_ratio_.sum()) == 0
    rank_one = np.outer(rng.normal(size=50), [3.0, 4.0])
    svd = fd.reduction.UncentredSVD(2).fit(rank_one)
    np.testing.assert_allclose(svd.components_[0], [0.6, 0.8], atol=1e-12)
    np.testing.assert_allclose(svd.explained_energy_ratio_, [1, 0], atol=1e-12)


def test_errors_say_what_to_do(rng):
    x = rng.normal(size=(10, 4))
    with pytest.raises(ValueError, match="at most 4"):
        fd.reduction.UncentredSVD(5).fit(x)
    with pytest.raises(ValueError, match="not fitted"):
        fd.reduction.UncentredSVD(2).transform(x)
    with pytest.raises(ValueError, match="the fit had 4"):
        fd.reduction.UncentredSVD(2).fit(x).transform(x[:, :3])
    x[7, 2] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        fd.reduction.UncentredSVD(2).fit(x)


@pytest.mark.parametrize("shape", [(60, 7), (7, 60), (1, 5), (30, 1)])
@pytest.mark.parametrize("exponent", [-170, -300, 170, 300])
def test_entries_whose_squares_are_out_of_range_are_not_lost(rng, shape, exponent):
    x = rng.normal(size=shape) * 10.0**exponent
    k = min(shape)
    svd = fd.reduction.UncentredSVD(k).fit(x)
    np.testing.assert_allclose(svd.singular_values_, np.linalg.svd(x, compute_uv=False), rtol=1e-9)
    assert float(svd.explained_energy_ratio_.sum()) == pytest.approx(1)
    np.testing.assert_allclose(svd.transform(x) @ svd.components_, x, atol=1e-9 * 10.0**exponent)


def test_a_small_column_is_found_beside_a_large_one(rng):
    x = rng.normal(size=(50, 4))
    x[:, 3] *= 1e-170
    svd = fd.reduction.UncentredSVD(4).fit(x)
    assert 0 < float(svd.singular_values_[3]) < 1e-168 and abs(float(svd.components_[3, 3])) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["npy", "fortran", "big-endian", "safetensors", "zarr", "parts"])
@pytest.mark.parametrize("shape", [(70_001, 65), (30, 400)])
def test_files_give_what_the_array_gives(tmp_path, rng, kind, shape):
    x = (rng.normal(size=shape) @ np.diag(np.linspace(3, 1, shape[1])) + 2).astype(np.float32)
    expected = fd.reduction.UncentredSVD(5).fit(x)
    path, options = tmp_path / "x.npy", {}
    if kind == "safetensors":
        from safetensors.numpy import save_file

        path, options = tmp_path / "x.safetensors", {"name": "last"}
        save_file({"last": x, "first": x[:3]}, path)
    elif kind == "zarr":
        path = tmp_path / "x"
        pytest.importorskip("zarr").create_array(str(path), shape=shape, chunks=(1000, 30), dtype="f4")[:] = x
    elif kind == "parts":
        path = [tmp_path / "a.npy", tmp_path / "b.npy"]
        np.save(path[0], x[:17])
        np.save(path[1], x[17:])
    else:
        np.save(path, {"fortran": np.asfortranarray(x), "big-endian": x.astype(">f4")}.get(kind, x))
    svd = fd.reduction.UncentredSVD(5).fit(path, **options)
    np.testing.assert_allclose(svd.components_, expected.components_, atol=1e-6)
    coordinates = svd.transform(path, **options)
    np.testing.assert_allclose(coordinates, x @ svd.components_.numpy().T, atol=1e-4)
    written = svd.transform(path, **options, path=tmp_path / "out.npy")
    assert torch.equal(written, coordinates) and np.array_equal(np.load(tmp_path / "out.npy"), coordinates)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        svd.transform(path, **options, path=tmp_path / "out.npy")
    assert torch.equal(svd.transform(x, path=tmp_path / "out.npy", overwrite=True), svd.transform(x))


def test_a_projection_that_fails_leaves_no_file(tmp_path, rng):
    svd = fd.reduction.UncentredSVD(2).fit(rng.normal(size=(10, 4)))
    np.save(tmp_path / "x.npy", rng.normal(size=(10, 3)))
    with pytest.raises(ValueError, match="the fit had 4"):
        svd.transform(tmp_path / "x.npy", path=tmp_path / "out.npy")
    with pytest.raises(ValueError, match="x is no file: leave name out"):
        svd.fit(np.ones((3, 3)), name="last")
    assert not (tmp_path / "out.npy").exists()

"""Files damaged at random: the command finishes or says in one sentence, with the file's name, what is wrong.

FASTDENS_DAMAGED_FILES is how many files to damage.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastdens.cli import main

N_DAMAGED = int(os.environ.get("FASTDENS_DAMAGED_FILES", "100"))
QUICK = ["--density", "gmm", "--components", "1", "--entropy-draws", "20", "--divergence-draws", "20"]
QUICK += ["--dimensions", "2", "2"]
N = 90


def written(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def zipped(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


# What lies in place of a file: arrays that hold something else, other formats, nothing.
OTHERS = {
    "strings": written(np.full((N, 4), "a")),
    "names": written(np.array(["ant", "bee"])[np.arange(N) % 2]),
    "objects": written(np.full((N, 4), None), allow_pickle=True),
    "records": written(np.zeros(N, [("a", "f4"), ("b", "i4")])),
    "complex": written(np.ones((N, 4), complex)),
    "dates": written(np.zeros((N, 4), "M8[s]")),
    "raw bytes": written(np.zeros((N, 4), "V2")),
    "0-d": written(np.float32(3)),
    "3-d": written(np.zeros((N, 2, 2))),
    "no rows": written(np.zeros((0, 4))),
    "no columns": written(np.zeros((N, 0))),
    "other rows": written(np.zeros((N + 1, 4))),
    "NaN": written(np.full((N, 4), np.nan)),
    "NaN labels": written(np.full(N, np.nan)),
    "zeros": written(np.zeros((N, 4))),
    "huge": written(np.full((N, 4), 1e300)),
    "tiny": written(np.full((N, 4), 1e-300)),
    "longdouble": written(np.random.default_rng(0).normal(size=(N, 4)).astype(np.longdouble)),
    "booleans": written(np.random.default_rng(0).normal(size=(N, 4)) > 0),
    "one class": written(np.zeros(N, int)),
    "a class each": written(np.arange(N) * 10**12),
    "uint64": written(np.arange(N, dtype=np.uint64) % 3 + np.uint64(2**63)),
    "half": written(np.arange(N) / 2),
    "archive": zipped(tr_mem=np.zeros(N)),
    "archive of objects": zipped(tr_mem=np.full(N, None)),
    "archive of others": zipped(a=np.zeros(3), tr_mem=np.zeros((3, 3), complex)),
    "pickle": pickle.dumps({"a": [1, 2]}),
    "text": b"one\ntwo\n\xff\xfe",
    "json": json.dumps({"a": [1]}).encode(),
    "deep json": b"[" * 100_000,
    "number": b"3",
    "names of layers": b'["a", "a"]',
    "other names": b'["z"]',
    "no name": b"[1, null]",
    "zero bytes": bytes(500),
    "nothing": b"",
}
HEADERS = [(b"'<f4'", b"'>f4'"), (b"'<f4'", b"'|O'"), (b"(90, 4)", b"(9, 40)"), (b"(90, 4)", b"(-9, 4)")]
HEADERS += [(b"(90, 4)", b"(90000000000000, 4)"), (b"False", b"True"), (b"'<f4'", b"'<U1'"), (b"'<f4'", b"'?!'")]
HEADERS += [(b"(90, 4)", b"([], 4)"), (b"'fortran_order'", b"'other_order'"), (b"F32", b"I32"), (b"F32", b"C64")]
HEADERS += [(b"[90,4]", b"[4,90]"), (b"[90,4]", b"[9,40]"), (b'"format": 2', b'"format": 9'), (b"F32", b"F64")]
HEADERS += [(b'"format": 2', b'"format": Infinity'), (b'"content": {', b'"content": [{'), (b'"type"', b'"kind"')]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Everything that the command reads."""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(1)
    (folder / "train").mkdir()
    labels = np.arange(N) % 3
    layers = {name: rng.normal(size=(N, 4)).astype(np.float32) for name in ("a", "b")}
    for name, x in layers.items():
        np.save(folder / "train" / f"{name}.npy", x)
    np.save(folder / "train" / "labels.npy", labels)
    (folder / "train" / "layers.json").write_text('["b", "a"]')
    shutil.copytree(folder / "train", folder / "test")
    (folder / "train" / "class_names.txt").write_text("ant\nbee\ncat\n")
    np.savez(folder / "scores.npz", tr_mem=rng.uniform(size=N), tr_labels=labels)
    tensors = {name: torch.from_numpy(x) for name, x in {**layers, "labels": labels}.items()}
    save_file(tensors, folder / "both.safetensors")
    arguments = ["--activations", str(folder / "train"), *QUICK, "--output", str(folder / "report")]
    assert main(["analyze", *arguments]) == 0
    return folder


def damaged(rng, content):
    """How the content was damaged, and the damaged content."""
    way = rng.choice(["bits", "head", "cut", "longer", "other", "other", "header", "header", "mixed"])
    raw = bytearray(content)
    if way in ("bits", "head"):
        end = len(raw) if way == "bits" else min(len(raw), 128)
        for place in rng.integers(0, end, rng.integers(1, 9)):
            raw[place] ^= 1 << int(rng.integers(8))
    elif way == "cut":
        raw = raw[: rng.integers(len(raw))]
    elif way == "longer":
        raw += rng.bytes(int(rng.integers(1, 50)))
    elif way == "other":
        way = str(rng.choice(list(OTHERS)))
        raw = bytearray(OTHERS[way])
    elif way == "header":
        fitting = [pair for pair in HEADERS if pair[0] in content] or HEADERS
        old, new = fitting[rng.integers(len(fitting))]
        way, raw = f"{old!r} to {new!r}", bytearray(content.replace(old, new))
    else:
        other = OTHERS[str(rng.choice(list(OTHERS)))]
        raw = raw[: rng.integers(len(raw))] + bytearray(other[len(other) // 2 :])
    return way, bytes(raw)


FILES = {
    "train/a.npy": "activations",
    "train/labels.npy": "activations",
    "train/layers.json": "activations",
    "train/class_names.txt": "activations",
    "test/a.npy": "test",
    "test/labels.npy": "test",
    "scores.npz": "scores",
    "both.safetensors": "safetensors",
    "report/analysis/analysis.json": "report",
    "report/analysis/arrays.safetensors": "report",
}


def arguments_for(command, folder):
    if command == "report":
        return ["report", str(folder / "report")]
    source = folder / ("both.safetensors" if command == "safetensors" else "train")
    test = ["--test-activations", str(folder / "test")] if command == "test" else []
    scores = ["--memorization", str(folder / "scores.npz")] if command == "scores" else []
    return ["analyze", "--activations", str(source), *scores, *test, *QUICK, "--output", str(folder / "out")]


@pytest.mark.slow
@pytest.mark.timeout(6000)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_named_in_one_sentence(whole, tmp_path, rng, monkeypatch, capsys):
    results, faults = [], []
    monkeypatch.setattr("fastdens.report.write_report", lambda analysis, _: results.append(analysis))
    monkeypatch.setattr("fastdens.pipeline.Analysis.save", lambda *_, **__: None)
    for number in range(N_DAMAGED):
        folder = shutil.copytree(whole, tmp_path / "copy")
        name = str(rng.choice(list(FILES)))
        how, content = damaged(rng, (folder / name).read_bytes())
        (folder / name).write_bytes(content)
        status = main(arguments_for(FILES[name], folder))
        error = re.sub(r"(?m)^\d of \d: .*\n", "", capsys.readouterr().err)
        if status == 0:
            layers = results.pop().layers
            finite = all(np.isfinite(part).all() for own in layers for part in (own.log_density, own.divergence.value))
            right = not error and finite
        else:
            # What can be read and does not fit is named by its layer, class or kind.
            named = any(word in error for word in (str(folder), "layer", "class", "scores"))
            right = status == 1 and named and error.startswith("fastdens: ") and error.endswith(".\n")
            right = right and error.count("\n") == 1 and len(error) < 600
        if not right:
            faults.append(f"{number}: {name}, {how}: {status}, {error}")
        shutil.rmtree(folder)
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])


@pytest.mark.parametrize("name", FILES)
def test_folders_in_place_of_files_are_named(whole, tmp_path, name, capsys):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert main(arguments_for(FILES[name], folder)) == 1
    error = capsys.readouterr().err
    assert str(folder) in error and error.count("\n") == 1 and error.endswith(".\n")


@pytest.mark.parametrize("name", [name for name, command in FILES.items() if command != "report"])
def test_files_that_may_not_be_read_are_named(whole, tmp_path, name, capsys, monkeypatch):
    folder = shutil.copytree(whole, tmp_path / "copy")
    of_io = io.open

    def refusing(file, *rest, **options):
        if str(file) == str(folder / name):
            raise PermissionError(13, "Permission denied", str(file))
        return of_io(file, *rest, **options)

    # Permissions do not bind the superuser, who may run the tests.
    monkeypatch.setattr("io.open", refusing)
    monkeypatch.setattr("builtins.open", refusing)
    assert main(arguments_for(FILES[name], folder)) == 1
    error = capsys.readouterr().err
    assert str(folder / name) in error and error.count("\n") == 1 and error.endswith(".\n")

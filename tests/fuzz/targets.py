"""The readers of the library, each as a function of the bytes of a file; with files to begin from.

A target writes the bytes to a folder of its own and reads them as a user would. What comes out is used, too: a fit that
was loaded gives densities.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save

import fastdens as fd
from fastdens.activations import load as load_activations
from fastdens.analysis import read_memorization_scores
from fastdens.io.arrays import map_npy, map_safetensors
from fastdens.io.index_lists import read_index_list, read_label_list
from fastdens.io.safe_pickle import read_pickle
from fastdens.io.state_file import fingerprint
from fastdens.pipeline import Analysis
from fastdens.training.datasets.folder import load_folder
from fastdens.training.datasets.mini_imagenet import load_pickles
from fastdens.training.networks.weights import read_weights
from fastdens.training.runs import load_predictions
from tests.contract import bounded_memory, fault_of, watched
from tests.report.analysis_problem import analysis_problem

# A reader that takes longer for a small file hangs.
SECONDS = 10.0


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes
    ----------
    read : callable
        Puts the bytes into a folder and reads them.
    seeds : callable
        Files that can be read, to begin from.
    """

    read: Callable[[bytes, Path], object]
    seeds: Callable[[], Iterator[bytes]]


def fault(target: Target, content: bytes, folder: Path) -> str | None:
    """What is wrong with how a target reads the bytes, None if nothing is."""
    _warm_up(target)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun, wrong = time.monotonic(), None
    with bounded_memory(), watched(folder) as seen, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(content, folder)
        except Exception as error:
            wrong = fault_of(error, (ValueError, OSError))
    if seen:
        return f"it left its folder: {seen[0]}"
    if time.monotonic() - begun > SECONDS:
        return f"it took {time.monotonic() - begun:.0f} s"
    return wrong


@cache
def _warm_up(target: Target) -> None:
    """Read what can be read, so that modules are imported and kernels compiled before memory is bounded."""
    for content in target.seeds():
        with TemporaryDirectory() as folder, suppress(ValueError, OSError):
            target.read(content, Path(folder))


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Reads one file of a name."""

    def of_bytes(content: bytes, folder: Path) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return of_bytes


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


# Arrays.


def _npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def _npz(save_: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save_(stream, **arrays)
    return stream.getvalue()


def _npy_seeds() -> Iterator[bytes]:
    for dtype in ("<f4", ">f8", "<i8", "|b1", "<f2", "<U3", "|S2", "<M8[s]", "<c8", "<f2, <i4", "|V2", ">U2"):
        yield _npy(np.zeros((3, 2), dtype))
    yield _npy(np.asfortranarray(_rng().normal(size=(4, 3))))
    yield _npy(np.float32(3))
    yield _npy(np.zeros((0, 2)))
    yield _npy(np.array([{"a": 1}, None]), allow_pickle=True)


def _tensors() -> dict[str, torch.Tensor]:
    return {
        "b": torch.arange(6.0).reshape(3, 2),
        "a": torch.ones(3, 2, dtype=torch.bfloat16),
        "labels": torch.arange(3),
    }


def _safetensors_seeds() -> Iterator[bytes]:
    yield save(_tensors(), {"names": '["a", "b", "labels"]'})
    yield save({"x": torch.zeros(0, 2)})
    for dtype in (torch.bool, torch.uint8, torch.float16, torch.complex64, torch.float8_e4m3fn, torch.uint16):
        yield save({"x": torch.zeros(3, 2, dtype=dtype)})


# Scores and pickles.


def _score_seeds() -> Iterator[bytes]:
    scores, labels = _rng().uniform(size=5), np.arange(5)
    yield _npz(tr_mem=scores, tr_labels=labels)
    yield _npz(np.savez_compressed, tr_mem=scores, tr_labels=labels)
    yield _npz(tr_mem=scores, tr_labels=np.array(["a", "b", "c", "d", "e"]))
    yield _npz(tr_mem=scores.astype(object), tr_labels=labels.astype(object))
    yield _npy(scores)
    yield _npy(np.array({"tr_mem": scores, "tr_labels": labels}), allow_pickle=True)
    for protocol in range(6):
        yield pickle.dumps({"tr_mem": scores, "tr_labels": labels.tolist()}, protocol)


def _pickle_seeds() -> Iterator[bytes]:
    x = _rng().normal(size=3)
    for protocol in range(6):
        yield pickle.dumps({"a": x, "b": [x, x[:0]], "c": (1, 2.5, None, True), b"d": "é", "e": 2**90}, protocol)
        yield pickle.dumps([np.float32(1), x.astype(">f4"), np.array(["ant"]), np.array([None, "x"], object)], protocol)


def _mini_imagenet(content: bytes, folder: Path) -> object:
    (folder / "train.pickle").write_bytes(content)
    (folder / "test.pickle").write_bytes(next(_mini_imagenet_seeds()))
    return load_pickles(folder, 4, allow_pickle=True)


def _mini_imagenet_seeds() -> Iterator[bytes]:
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), [0, 0, 1, 1]
    yield pickle.dumps({"data": images, "labels": labels})
    yield pickle.dumps({"data": list(images), "labels": np.array(labels)}, 2)


# States: their digest is made to fit, or else nothing behind it would be reached.


def _split_state(content: bytes) -> bytes:
    """A state file as the JSON of its facts, the JSON of its tensors, and their bytes, with NUL between them."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts = header.pop("__metadata__")["fastdens"]
    return b"\0".join([facts.encode(), json.dumps(header).encode(), content[8 + length :]])


def _join_state(content: bytes) -> bytes:
    """The file of what :func:`_split_state` returned, signed, as far as it can be."""
    facts, layout, data = (*content.split(b"\0", 2), b"", b"")[:3]
    try:
        header = json.loads(layout)
        end = max(entry["data_offsets"][1] for entry in header.values())
        data = data[:end].ljust(min(end, 1 << 20), b"\0")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return content
    text = facts.decode("utf-8", "replace")
    unsigned = _packed(header, text, "", data)
    try:
        tensors = load(unsigned)
    except Exception:
        return unsigned
    names = sorted(tensors)
    entries = json.dumps([text, names, fingerprint(tensors[name] for name in names)])
    return _packed(header, text, blake2b(entries.encode(), digest_size=16).hexdigest(), data)


def _packed(header: dict[str, Any], facts: str, digest: str, data: bytes) -> bytes:
    text = json.dumps({**header, "__metadata__": {"fastdens": facts, "blake2b": digest}}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _fit(content: bytes, folder: Path) -> object:
    (folder / "fit.safetensors").write_bytes(_join_state(content))
    fit = fd.load(folder / "fit.safetensors")
    fit.density()
    return fit.log_prob(torch.zeros(2, 2, dtype=torch.float64))


def _batch() -> fd.RaggedBatch:
    return fd.RaggedBatch.from_labels(_rng().normal(size=(24, 2)), np.arange(24) % 2)


def _bytes_of(fit: Any) -> bytes:
    tensors, metadata = fit.get_state()
    facts = json.dumps({"format": 1, "kind": "fit", "facts": metadata})
    packed = save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, {"fastdens": facts})
    return _split_state(packed)


def _fit_seeds() -> Iterator[bytes]:
    warnings.simplefilter("ignore")
    batch = _batch()
    yield _bytes_of(fd.GaussianMixtures(2, max_iter=2).fit(batch))
    yield _bytes_of(fd.GaussianMixtures(2, covariance_type="diag", max_iter=2).fit(batch))
    yield _bytes_of(fd.DirichletProcessMixtures(n_sweeps=6, burn_in=2, thin=2, progress=False).fit(batch))
    yield _bytes_of(fd.VariationalDirichletProcessMixtures(max_iter=2, truncation=3).fit(batch))


def _checkpoint(content: bytes, folder: Path) -> object:
    (folder / "chains.safetensors").write_bytes(_join_state(content))
    return _sampler(6).fit(_batch(), checkpoint=folder / "chains.safetensors")


def _sampler(n_sweeps: int) -> fd.DirichletProcessMixtures:
    return fd.DirichletProcessMixtures(n_sweeps=n_sweeps, burn_in=2, thin=2, progress=False)


def _checkpoint_seeds() -> Iterator[bytes]:
    with TemporaryDirectory() as folder:
        _sampler(4).fit(_batch(), checkpoint=Path(folder, "chains"))
        yield _split_state(Path(folder, "chains").read_bytes())


def _run(content: bytes, folder: Path) -> object:
    (folder / "run.safetensors").write_bytes(_join_state(content))
    return load_predictions(folder, "run")


def _run_seeds() -> Iterator[bytes]:
    recipe = {"network": "resnet18", "width": 8, "epochs": 1, "jitter": True, "precision": "float32"}
    facts = {"recipe": recipe, "data": "0" * 32, "seed": 0, "shape": {"channels": 1, "size": 8, "classes": 2}}
    tensors = {"included": torch.tensor([True, False]), "train_predicted": torch.arange(2), "model.a": torch.zeros(2)}
    tensors["test_predicted"] = torch.arange(2)
    text = json.dumps({"format": 1, "kind": "training run", "facts": facts})
    yield _split_state(save(tensors, {"fastdens": text}))


def _analysis(content: bytes, folder: Path) -> object:
    """The tree of a saved analysis; its digest stands beside the arrays, which are as they were saved."""
    (folder / "analysis.json").write_bytes(content)
    facts = {"analysis.json": blake2b(content.decode("utf-8", "replace").encode(), digest_size=16).hexdigest()}
    text = json.dumps({"format": 1, "kind": "analysis", "facts": facts})
    _, layout, data = _split_state(_saved_analysis()["arrays.safetensors"]).split(b"\0", 2)
    (folder / "arrays.safetensors").write_bytes(_join_state(b"\0".join([text.encode(), layout, data])))
    return Analysis.load(folder)


def _saved_analysis() -> dict[str, bytes]:
    if not _SAVED:
        with TemporaryDirectory() as folder:
            analysis_problem(_rng(), class_names=("0", "1"), layer_names=("a",)).save(Path(folder, "saved"))
            _SAVED.update({file.name: file.read_bytes() for file in Path(folder, "saved").iterdir()})
    return _SAVED


_SAVED: dict[str, bytes] = {}


def _analysis_seeds() -> Iterator[bytes]:
    yield json.dumps(json.loads(_saved_analysis()["analysis.json"])).encode()


# Folders.


def _activations(content: bytes, folder: Path) -> object:
    for name in ("a", "b"):
        (folder / f"{name}.npy").write_bytes(_npy(np.ones((3, 2), np.float32)))
    (folder / "layers.json").write_bytes(content)
    return load_activations(folder)


def _labels_of_activations(content: bytes, folder: Path) -> object:
    (folder / "a.npy").write_bytes(_npy(np.ones((3, 2), np.float32)))
    (folder / "labels.npy").write_bytes(content)
    return load_activations(folder)


def _label_seeds() -> Iterator[bytes]:
    for labels in ([0, 1, 1], ["a", "b", "b"], [0.0, 1.0, 2.0], [True, False, True]):
        yield _npy(np.array(labels))
    yield _npy(np.array([2**63, 1, 2], np.uint64))
    yield _npy(np.array(["2020-01-01"] * 3, "M8[D]"))


_IMAGES = {"PNG": "png", "JPEG": "jpg", "PPM": "ppm", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}


def _image(form: str, mode: str = "RGB", **options: Any) -> bytes:
    pixels, stream = (_rng().random((5, 6, 3)) * 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def _images(content: bytes, folder: Path) -> object:
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(2):
            (folder / name / f"{i}.png").write_bytes(_image("PNG"))
    (folder / "dog" / "2.png").write_bytes(content)
    return load_folder(folder, 4, 0)


def _image_seeds() -> Iterator[bytes]:
    for form in _IMAGES:
        yield _image(form)
    for mode in ("L", "P", "1", "RGBA", "I;16"):
        yield _image("PNG", mode)
    yield _image("JPEG", "CMYK")
    yield _image("TIFF", compression="tiff_lzw")


def _lists(content: bytes, folder: Path) -> object:
    (folder / "images").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "images" / name).write_bytes(_image("PNG"))
    (folder / "train.csv").write_bytes(content)
    return load_folder(folder, 4, 0)


def _list_seeds() -> Iterator[bytes]:
    yield b"filename,label\na.png,cat\nb.png,cat\na.png,dog\nb.png,dog\n"
    yield b'label,other,filename\r\ncat,1,a.png\r\n"cat",2,"b.png"\r\n'
    yield b"filename,label\n../../../etc/hostname,cat\n"


def _weights(content: bytes, folder: Path) -> object:
    file = folder / ("w.safetensors" if content[8:9] == b"{" else "w.pt")
    file.write_bytes(content)
    return read_weights(file)


def _weight_seeds() -> Iterator[bytes]:
    yield save({"a": torch.zeros(2, 3)})
    for state in ({"a": torch.zeros(2, 3), "b": torch.tensor(1)}, {"state_dict": {"module.a": torch.zeros(1)}, "e": 3}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(state, stream, _use_new_zipfile_serialization=zipped)
            yield stream.getvalue()


def _integer_seeds() -> Iterator[bytes]:
    yield b"[0, 1, 2, 5]"
    yield b"[3]"
    yield b"[]"
    yield b'{"a": [1.5, null, true, "x"]}'


def _index_lists(file: Path) -> object:
    read_label_list(file)
    return read_index_list(file, 6)


TARGETS = {
    "npy": Target(_file("x.npy", map_npy), _npy_seeds),
    "safetensors": Target(_file("x.safetensors", map_safetensors), _safetensors_seeds),
    "activations": Target(_activations, lambda: iter([b'["a", "b"]', b'["b"]', b"{}", b"[1, null]"])),
    "labels": Target(_labels_of_activations, _label_seeds),
    "lists": Target(_file("x.json", _index_lists), _integer_seeds),
    "scores": Target(_file("x.npz", lambda file: read_memorization_scores(file, allow_pickle=True)), _score_seeds),
    "pickle": Target(_file("x.pickle", read_pickle), _pickle_seeds),
    "mini_imagenet": Target(_mini_imagenet, _mini_imagenet_seeds),
    "fit": Target(_fit, _fit_seeds),
    "checkpoint": Target(_checkpoint, _checkpoint_seeds),
    "run": Target(_run, _run_seeds),
    "analysis": Target(_analysis, _analysis_seeds),
    "images": Target(_images, _image_seeds),
    "image_lists": Target(_lists, _list_seeds),
    "weights": Target(_weights, _weight_seeds),
}

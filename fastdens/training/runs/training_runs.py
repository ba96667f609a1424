"""A folder of trained networks, one file each, that any number of processes fill together and that can be resumed.

POSIX only: a process claims a network by a lock on a file, which the operating system frees however the process ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from fastdens.io.state_file import SavedState, fingerprint, read_state, write_state
from fastdens.progress import Advance, progress_bar
from fastdens.training.datasets.images import Images
from fastdens.training.networks import build_network
from fastdens.training.recipe import check_training, predict, train

_KIND = "training run"
_SECONDS_BETWEEN_LOOKS = 0.25
# A process that was forked after torch has computed can neither use a GPU nor count on its threads.
_START_METHOD: Final = "spawn"
_PREDICTIONS = ("train_predicted", "test_predicted")


@dataclass(frozen=True)
class Recipe:
    """What a network is and how it is trained.

    See :func:`fastdens.training.networks.build_network` and :func:`fastdens.training.recipe.train`; the noise
    is in units of pixels from 0 to 1, whatever the images were standardized by.

    Raises
    ------
    ValueError
        If a number is out of range or there is no such dtype.
    """

    network: str = "resnet18"
    width: int = 16
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    noise: float = 0.0
    augment: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_training(epochs=self.epochs, batch_size=self.batch_size, noise=self.noise, dtype=self.dtype)


class TrainingRun(NamedTuple):
    """One network to train: its name, the training examples that it sees, bool [N], and the seed of all its chance."""

    name: str
    included: Tensor
    seed: int


class RunPredictions(NamedTuple):
    """What is known of a trained network without building it.

    ``included`` bool [N]; the labels that it gives to all training images, int64 [N], and all test images; ``facts``:
    its recipe, its seed, the fingerprint of its data, the number of threads it was trained by.
    """

    included: Tensor
    train_predicted: Tensor
    test_predicted: Tensor
    facts: dict[str, Any]


class RunResult(NamedTuple):
    """A trained network, ready to predict, and what :class:`RunPredictions` tells of it."""

    model: nn.Module
    included: Tensor
    train_predicted: Tensor
    test_predicted: Tensor
    facts: dict[str, Any]


def subset_runs(n_networks: int, n_examples: int, share: float = 0.7, seed: int = 0) -> list[TrainingRun]:
    """Networks that each see a random share of the examples, for the estimate of memorization.

    Asking for more networks later keeps the earlier ones as they are.

    Parameters
    ----------
    n_networks, n_examples : int
    share : float
        Each network sees ``round(share * n_examples)`` examples, every subset of that size as likely.
    seed : int
        Network t is drawn from a stream of its own, of (seed, t).

    Returns
    -------
    list of TrainingRun
        "memorization-0000" and so on.

    Raises
    ------
    ValueError
        If the share leaves no example in or none out, or a number is out of range.

    References
    ----------
    Feldman & Zhang, What neural networks memorize and why, NeurIPS 2020, section 2 (share 0.7).
    """
    if n_networks < 1:
        raise ValueError(f"n_networks is {n_networks}, but there is no estimate without a network: pass 1 or more.")
    if seed < 0:
        raise ValueError(f"seed is {seed}, but seeds count from 0: pass 0 or more.")
    n_included = round(share * n_examples) if 0 < share < 1 else 0
    if not 0 < n_included < n_examples:
        raise ValueError(
            f"a share of {share} of {n_examples} examples leaves none in or none out: pass a share between 0 and 1, "
            "such as 0.7."
        )
    runs = []
    for t in range(n_networks):
        rng = np.random.default_rng((seed, t))
        included = torch.zeros(n_examples, dtype=torch.bool)
        included[torch.from_numpy(rng.permutation(n_examples)[:n_included])] = True
        runs.append(TrainingRun(f"memorization-{t:04d}", included, int(rng.integers(2**62))))
    return runs


def left_out_runs(bins: ArrayLike | Tensor, n_bins: int, seed: int = 0) -> list[TrainingRun]:
    """One network a bin of the examples, which sees all examples but those of the bin.

    Parameters
    ----------
    bins : array of int [N]
        The bin of each training example, counted from 0.
    n_bins : int
    seed : int
        Of every network: all start alike, so that what differs is the bin.

    Returns
    -------
    list of TrainingRun
        "without-bin-0" and so on.

    Raises
    ------
    ValueError
        If bins are not integers from 0 to ``n_bins - 1``, or one has no examples or all of them.
    """
    of_example = torch.as_tensor(bins)
    if of_example.ndim != 1 or of_example.is_floating_point() or of_example.dtype == torch.bool:
        raise ValueError(
            f"bins are {of_example.dtype} of shape {list(of_example.shape)}: pass one integer for each example."
        )
    counts = Counter(of_example.tolist())
    for b in sorted(counts.keys() - set(range(n_bins))):
        raise ValueError(f"an example is in bin {b}, but the {n_bins} bins count from 0: renumber them.")
    for b in range(n_bins):
        if not 0 < counts[b] < len(of_example):
            raise ValueError(
                f"bin {b} has {counts[b]} of the {len(of_example)} examples: pass bins that each have some and not all."
            )
    return [TrainingRun(f"without-bin-{b}", (of_example != b).cpu(), seed) for b in range(n_bins)]


def train_runs(
    folder: str | os.PathLike[str],
    images: Images,
    labels: Tensor,
    runs: Sequence[TrainingRun],
    recipe: Recipe,
    *,
    processes: int = 1,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> None:
    """Train every network whose file is not in the folder yet.

    Any number of processes may work on one folder: those of ``processes``, and others that were started by hand with
    the same arguments, at any time. Each network is trained by one of them. A process that has nothing left to train
    waits until the others are done, and takes over from one that dies. What is lost with a killed process is the
    network that it was training; the next call with the same arguments goes on.

    Parameters
    ----------
    folder : path-like
        Gets one file a run, ``NAME.safetensors``: weights, ``included``, predictions, and the facts that identify it.
    images : Images
    labels : Tensor
        int64 [N], the labels to train with, in place of ``images.train_labels``.
    runs : sequence of TrainingRun
    recipe : Recipe
    processes : int
        Trains in this process if 1, otherwise in as many others, which share its threads and, in shared memory, the
        images. A script that asks for several has to be importable: ``if __name__ == "__main__":``.
    device : str or torch.device, optional
        By default the GPU, or the GPUs in turn, where there are any.
    progress : bool

    Raises
    ------
    ValueError
        If runs, labels or images do not fit together, there is no such network, or a file in the folder is damaged or
        of another recipe, other data, or another choice of examples; found out before training.
    ChildProcessError
        If training failed in one of several processes; the others are stopped. With one process the exception itself
        is raised.
    OSError
        If a file cannot be written, ``folder`` is a file, or shared memory is too small for the images.
    ImportError
        If safetensors is missing, or rich is and ``progress`` is True.

    Notes
    -----
    A network is the same, bit for bit, whichever process trains it, if it is trained on the same device by the same
    number of threads: K processes have a K-th of this one's each.
    """
    job = _job(Path(folder), images, labels, runs, recipe)
    # Unknown names and impossible sizes are the caller's to know, not a child's.
    job.network()
    if processes < 1:
        raise ValueError(f"processes is {processes}, but something has to train: pass 1 or more.")
    if job.folder.exists() and not job.folder.is_dir():
        raise NotADirectoryError(f"{job.folder} is a file, but the networks need a folder: pass another path.")
    job.folder.mkdir(parents=True, exist_ok=True)
    missing = [run for run in range(len(runs)) if not job.file(run).exists()]
    for run in sorted(set(range(len(runs))) - set(missing)):
        job.check(run)
    try:
        with progress_bar("Networks", len(runs), shown=progress) as advance:
            if min(processes, len(missing)) <= 1:
                _train_missing(job, _devices(device)[0], advance)
            else:
                _train_in_processes(job, min(processes, len(missing)), _devices(device), advance)
    finally:
        job.remove_free_locks()
    # Other processes may have been asked for something else.
    for run in missing:
        job.check(run)


def load_run(
    folder: str | os.PathLike[str], name: str, images: Images, *, device: str | torch.device | None = None
) -> RunResult:
    """A network that :func:`train_runs` trained.

    Parameters
    ----------
    folder : path-like
    name : str
        Of the run.
    images : Images
        What it was trained on, for the size of the network.
    device : str or torch.device, optional
        Where to put the network; by default on a GPU where there is one.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    ValueError
        If the file is damaged, or one of other images.
    ImportError
        If safetensors is missing.
    """
    path = _file(Path(folder), name)
    state = _read(path)
    recipe, shape = Recipe(**state.facts["recipe"]), _Shape.of(images)
    if state.facts["shape"] != shape._asdict():
        raise ValueError(
            f"{path} is of a network for images of {state.facts['shape']}, not {shape._asdict()}: pass the images that "
            "it was trained on."
        )
    model = _network(recipe, shape)
    model.load_state_dict({key[len("model.") :]: value for key, value in state.tensors.items() if key[:6] == "model."})
    model.to(_devices(device)[0]).eval()
    return RunResult(model, *_predictions(state))


def load_predictions(folder: str | os.PathLike[str], name: str) -> RunPredictions:
    """What a network that :func:`train_runs` trained predicts, without the network.

    Raises
    ------
    FileNotFoundError
        If there is no such run.
    ValueError
        If the file is damaged.
    ImportError
        If safetensors is missing.
    """
    return _predictions(_read(_file(Path(folder), name)))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _read(path: Path) -> SavedState:
    return read_state(path, _KIND)


def _predictions(state: SavedState) -> RunPredictions:
    included, on_train, on_test = (state.tensors[name] for name in ("included", *_PREDICTIONS))
    return RunPredictions(included, on_train, on_test, state.facts)


class _Shape(NamedTuple):
    """The sizes that decide those of a network."""

    channels: int
    size: int
    classes: int

    @classmethod
    def of(cls, images: Images) -> _Shape:
        return cls(images.train.shape[1], images.train.shape[-1], len(images.class_names))


def _network(recipe: Recipe, shape: _Shape) -> nn.Module:
    # Weights are drawn from torch's global generator, which stays as it was.
    with torch.random.fork_rng([]):
        return build_network(recipe.network, shape.classes, shape.channels, width=recipe.width, image_size=shape.size)


class _Job(NamedTuple):
    """All that a process needs to train any of the runs; ``included`` is bool [runs, N]."""

    folder: Path
    train: Tensor
    labels: Tensor
    test: Tensor
    deviation: Tensor
    shape: _Shape
    names: tuple[str, ...]
    included: Tensor
    seeds: tuple[int, ...]
    recipe: Recipe
    data: str

    def file(self, run: int) -> Path:
        return _file(self.folder, self.names[run])

    def network(self) -> nn.Module:
        return _network(self.recipe, self.shape)

    def facts(self, run: int) -> dict[str, Any]:
        """What a file is known by."""
        shape = self.shape._asdict()
        return {"recipe": asdict(self.recipe), "seed": self.seeds[run], "shape": shape, "data": self.data}

    def check(self, run: int) -> None:
        """Raise a ValueError if the file of a run is not what this job would write."""
        path = self.file(run)
        state = _read(path)
        for what, expected, found in self._comparisons(run, state):
            if found != expected:
                raise ValueError(
                    f"{path} is a network of {what.format(found=found, expected=expected)}: delete it or use another "
                    "folder."
                )

    def _comparisons(self, run: int, state: SavedState) -> Iterator[tuple[str, object, object]]:
        facts = self.facts(run)
        for name, value in facts["recipe"].items():
            yield f"{name} = {{found!r}}, not {{expected!r}}", value, state.facts["recipe"].get(name)
        yield "other images or labels", facts["data"], state.facts["data"]
        same = torch.equal(state.tensors["included"], self.included[run])
        yield "another choice of training examples", True, same
        yield "seed {found!r}, not {expected!r}", facts["seed"], state.facts["seed"]

    def remove_free_locks(self) -> None:
        """Remove the locks that killed processes have left."""
        for run in range(len(self.names)):
            if _lock(self.file(run)).exists():
                with _claimed(self.file(run)):
                    pass


def _job(folder: Path, images: Images, labels: Tensor, runs: Sequence[TrainingRun], recipe: Recipe) -> _Job:
    """The job, once everything in it is known to fit together."""
    n_examples, n_classes = len(images.train), len(images.class_names)
    if not runs:
        raise ValueError("there are no runs, so nothing to train: pass at least one.")
    if labels.shape != (n_examples,) or labels.dtype != torch.int64:
        raise ValueError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}, but there are {n_examples} training images: "
            "pass an int64 label for each."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, but there are {n_classes} class names: "
            "number the classes from 0."
        )
    for name, count in Counter(run.name for run in runs).items():
        if count > 1:
            raise ValueError(f"{count} runs are named {name!r}, but each has a file of its own: rename them.")
        if not name or name.startswith(".") or Path(name).name != name:
            raise ValueError(f"a run is named {name!r}, which makes no file name: rename it.")
    for run in runs:
        if run.included.shape != (n_examples,) or run.included.dtype != torch.bool:
            raise ValueError(
                f"included of run {run.name!r} is {run.included.dtype} of shape {list(run.included.shape)}, but there "
                f"are {n_examples} training images: pass a bool for each."
            )
        if int(run.included.sum()) < 2:
            raise ValueError(f"run {run.name!r} includes fewer than two examples to train on: include more.")
    return _Job(
        folder,
        images.train,
        labels,
        images.test,
        images.std,
        _Shape.of(images),
        tuple(run.name for run in runs),
        torch.stack([run.included for run in runs]),
        tuple(run.seed for run in runs),
        recipe,
        fingerprint([images.train, labels, images.test]),
    )


def _devices(device: str | torch.device | None) -> list[torch.device]:
    """The device that was asked for, or all the GPUs, or the CPU."""
    if device is not None:
        return [torch.device(device)]
    n_gpus = torch.cuda.device_count()
    return [torch.device("cuda", gpu) for gpu in range(n_gpus)] if n_gpus else [torch.device("cpu")]


def _lock(file: Path) -> Path:
    return file.with_name(f".{file.stem}.lock")


@contextmanager
def _claimed(file: Path) -> Iterator[bool]:
    """Whether this process, and no other, may write ``file`` in the block."""
    lock = _lock(file)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        mine = _locked(descriptor, lock)
        try:
            yield mine
        finally:
            if mine:
                # Only its holder removes a lock, so that nobody ever removes one that another holds.
                lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, lock: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        # Another may have removed the file since it was opened here: then the lock is on a file that nobody sees.
        return os.path.samestat(os.fstat(descriptor), lock.stat())
    except FileNotFoundError:
        return False


def _train_missing(job: _Job, device: torch.device, advance: Advance) -> None:
    """Train what nobody else trains, until every run has its file."""
    for missing in _until_all_are_there(job, advance):
        if not any(_train_if_free(job, run, device, advance) for run in missing):
            advance(0, f"{len(missing)} are being trained by other processes")
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _until_all_are_there(job: _Job, advance: Advance) -> Iterator[list[int]]:
    """The runs that have no file, again and again while there are any; each counts once it has one."""
    missing = list(range(len(job.names)))
    while missing:
        before, missing = len(missing), [run for run in missing if not job.file(run).exists()]
        advance(before - len(missing))
        if missing:
            yield missing


def _train_if_free(job: _Job, run: int, device: torch.device, advance: Advance) -> bool:
    """Train a run unless another process does; whether its file is there now."""
    with _claimed(job.file(run)) as mine:
        if mine and not job.file(run).exists():
            advance(0, job.names[run])
            try:
                _train_run(job, run, device)
            except Exception as error:
                error.add_note(f"in the training of {job.file(run)}")
                raise
        return mine


def _train_run(job: _Job, run: int, device: torch.device) -> None:
    seed = job.seeds[run]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = job.network().to(device)
        train(
            model,
            job.train,
            job.labels,
            epochs=job.recipe.epochs,
            batch_size=job.recipe.batch_size,
            learning_rate=job.recipe.learning_rate,
            weight_decay=job.recipe.weight_decay,
            noise=job.recipe.noise / job.deviation,
            augment=job.recipe.augment,
            dtype=job.recipe.dtype,
            examples=job.included[run].nonzero()[:, 0],
            generator=torch.Generator().manual_seed(seed),
            progress=False,
        )
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {"included": job.included[run]}
    tensors |= {name: predict(model, x) for name, x in zip(_PREDICTIONS, (job.train, job.test), strict=True)}
    facts = {**job.facts(run), "threads": torch.get_num_threads()}
    write_state(job.file(run), _KIND, tensors, facts, overwrite=False)


def _train_in_processes(job: _Job, n_processes: int, devices: list[torch.device], advance: Advance) -> None:
    try:
        # Copies: sharing a tensor in place frees the memory under numpy arrays that the caller may hold of it.
        shared = {name: getattr(job, name).clone().share_memory_() for name in ("train", "labels", "test", "included")}
        job = job._replace(**shared)
    except RuntimeError as error:
        raise OSError(
            f"the images cannot be put into shared memory ({error}): enlarge /dev/shm, or pass processes=1."
        ) from None
    context = torch.multiprocessing.get_context(_START_METHOD)
    n_threads = max(1, torch.get_num_threads() // n_processes)
    children, receivers = [], []
    try:
        with _interrupts_held():
            for k in range(n_processes):
                receiver, sender = context.Pipe(duplex=False)
                arguments = (job, devices[k % len(devices)], n_threads, sender)
                child = context.Process(target=_child, args=arguments, daemon=True)
                child.start()
                sender.close()
                children.append(child)
                receivers.append(receiver)
        for missing in _until_all_are_there(job, advance):
            alive = [child for child in children if child.is_alive()]
            for receiver in receivers:
                _raise_what_failed(receiver)
            codes = [child.exitcode for child in children if child.exitcode]
            if codes:
                # What it trained is free for the others.
                advance(0, f"{len(codes)} of {len(children)} processes died")
            if not alive and not all(job.file(run).exists() for run in missing):
                raise ChildProcessError(
                    f"{len(missing)} of {len(job.names)} networks are not in {job.folder} because the processes that "
                    f"trained them died (exit codes {codes}): call again, with fewer processes if memory ran out."
                )
            wait([child.sentinel for child in alive], timeout=_SECONDS_BETWEEN_LOOKS)
    finally:
        # A killed one leaves nothing that matters: the networks that are there are whole.
        for child in children:
            child.kill()
        for child in children:
            child.join()


def _raise_what_failed(receiver: Connection) -> None:
    try:
        message = receiver.recv() if receiver.poll() else None
    except EOFError:
        return
    if message:
        raise ChildProcessError(message)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, and never reaches processes started in it: their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _child(job: _Job, device: torch.device, n_threads: int, sender: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(n_threads)
    try:
        _train_missing(job, device, lambda steps=1, note=None: None)
    except Exception as error:
        what = " ".join([f"{type(error).__name__}: {error},", *getattr(error, "__notes__", [])])
        sender.send(f"a training process failed with {' '.join(what.split())}: remove the cause and call again.")
        sys.exit(1)


def _end_with_parent() -> NoReturn:
    """A parent that is killed cannot stop its children, and nobody waits for what they do."""
    parent = torch.multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)

"""A folder of trained networks: filled by several processes, killed, resumed, and mistaken for another."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastdens.training.runs.training_runs import (
    Recipe,
    TrainingRun,
    left_out_runs,
    load_predictions,
    load_run,
    subset_runs,
    train_runs,
)

from fastdens.io.state_file import read_state
from fastdens.training import training_runs
from fastdens.training.datasets.images import load_images
from fastdens.training.recipe import predict

RECIPE = Recipe(width=4, epochs=1)
NAMES = [f"memorization-{t:04d}" for t in range(3)]

# Processes that stand for those started by hand: forked from one that has imported everything, so that they start soon.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])


def some_images():
    images = load_images("digits", Path("data"), 8, 0)
    return images._replace(train=images.train[:200], train_labels=images.train_labels[:200], test=images.test[:50])


def train_all(folder, n_networks=3, recipe=RECIPE, **options):
    images = some_images()
    runs = subset_runs(n_networks, 200, seed=4)
    train_runs(folder, images, images.train_labels, runs, recipe, device="cpu", **{"progress": False, **options})
    # Sharing a tensor in place would free the memory under a numpy array of it.
    assert not images.train.is_shared() and not images.train_labels.is_shared()


def start(folder, change=None, *arguments):
    """A process that trains the folder, calls ``change(run, *arguments)`` before each run, and writes a log of runs."""
    child = processes.Process(target=by_hand, args=(folder, change, arguments))
    child.start()
    return child


def by_hand(folder, change, arguments):
    torch.set_num_threads(1)
    train_run = training_runs._train_run

    def logged(job, run, device):
        with (folder / "log").open("a") as log:
            log.write(f"{job.names[run]}\n")
        if change:
            change(run, *arguments)
        train_run(job, run, device)

    training_runs._train_run = logged
    train_all(folder)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_training(run):
    if run == 1:
        die()


def die_in_writing(run):
    if run == 1:
        os.fsync = lambda _: die()


def pause(run, seconds):
    time.sleep(seconds)


def contents(folder):
    return {path.name: read_state(path, "training run") for path in folder.glob("*.safetensors")}


def assert_same(folder, other):
    one, two = contents(folder), contents(other)
    assert one.keys() == two.keys() and len(one) > 0
    for name, state in one.items():
        assert state.facts == two[name].facts
        assert state.tensors.keys() == two[name].tensors.keys()
        for key, value in state.tensors.items():
            assert torch.equal(value, two[name].tensors[key]), (name, key)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images():
    return some_images()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder that was filled without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "deep" / "runs"
    train_all(folder)
    assert names_in(folder) == [f"{name}.safetensors" for name in NAMES]
    return folder


def test_a_run_holds_the_network_that_made_its_predictions(whole, images):
    for t, name in enumerate(NAMES):
        generator = torch.get_rng_state()
        result = load_run(whole, name, images, device="cpu")
        assert torch.equal(torch.get_rng_state(), generator) and not result.model.training
        assert torch.equal(predict(result.model, images.train), result.train_predicted)
        assert torch.equal(predict(result.model, images.test), result.test_predicted)
        assert result.train_predicted.dtype == result.test_predicted.dtype == torch.int64
        run = subset_runs(3, 200, seed=4)[t]
        assert torch.equal(result.included, run.included) and result.facts["seed"] == run.seed
        assert Recipe(**result.facts["recipe"]) == RECIPE and result.facts["threads"] == 1
        for one, two in zip(load_predictions(whole, name), result[1:], strict=True):
            assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    # They were trained apart, on other examples from other weights.
    assert len({state.tensors["model.conv1.weight"].sum().item() for state in contents(whole).values()}) == 3


def test_only_included_examples_and_given_labels_matter(tmp_path, images, rng):
    run = subset_runs(1, 200)[0]
    labels = images.train_labels
    hidden = images._replace(train=torch.where(run.included[:, None, None, None], images.train, images.train * 0 + 7))
    other = torch.where(run.included, labels, (labels + 3) % 10)
    wrong = (labels + 1) % 10
    for folder, x, y in (("a", images, labels), ("b", hidden, other), ("c", images, wrong)):
        train_runs(tmp_path / folder, x, y, [run], RECIPE, device="cpu", progress=False)
    weights = [contents(tmp_path / f)["memorization-0000.safetensors"].tensors["model.fc.weight"] for f in "abc"]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("change", [die_in_training, die_in_writing])
def test_a_killed_folder_resumes_as_if_it_had_not_been(tmp_path, whole, change):
    child = start(tmp_path, change)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / ".memorization-0001.lock").exists() and len(list(tmp_path.glob("*.safetensors"))) == 1
    assert len(list(tmp_path.glob(".*.partial"))) == (change is die_in_writing)
    train_all(tmp_path)
    (tmp_path / "log").unlink()
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


def test_a_lock_left_beside_a_whole_file_is_removed_and_one_that_is_held_is_not(tmp_path, whole):
    train_all(tmp_path, 1)
    lock = tmp_path / f".{NAMES[0]}.lock"
    lock.touch()
    with training_runs._claimed(tmp_path / f"{NAMES[0]}.safetensors") as mine:
        assert mine
        train_all(tmp_path, 1)
        assert lock.exists()
    lock.touch()
    train_all(tmp_path, 1)
    assert names_in(tmp_path) == [f"{NAMES[0]}.safetensors"]


def test_a_lock_removed_between_opening_and_locking_is_not_taken(tmp_path, monkeypatch):
    file = tmp_path / "x.safetensors"
    flock = training_runs.fcntl.flock

    def late(descriptor, how):
        # Its holder is done, and another process has made the file anew and holds that.
        training_runs._lock(file).unlink()
        training_runs._lock(file).touch()
        flock(descriptor, how)

    monkeypatch.setattr(training_runs.fcntl, "flock", late)
    with training_runs._claimed(file) as mine:
        assert not mine
    assert training_runs._lock(file).exists()


def test_processes_started_by_hand_share_the_work(tmp_path, whole):
    children = [start(tmp_path, pause, 0.5) for _ in range(2)]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == NAMES
    (tmp_path / "log").unlink()
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


def test_a_process_waits_for_another_and_takes_over_when_it_dies(tmp_path, whole, monkeypatch):
    child = start(tmp_path, pause, 100)
    wait_until((tmp_path / "log").exists)
    notes = []

    @contextmanager
    def bar(*_, **__):
        def advance(steps=1, note=None):
            notes.append(note)
            if note == "1 are being trained by other processes" and notes.count(note) == 2:
                assert {path.name for path in tmp_path.glob("*.safetensors")} == {f"{n}.safetensors" for n in NAMES[1:]}
                child.kill()

        yield advance

    monkeypatch.setattr(training_runs, "progress_bar", bar)
    train_all(tmp_path)
    assert [note for note in notes if note in NAMES] == [*NAMES[1:], NAMES[0]]
    (tmp_path / "log").unlink()
    assert_same(tmp_path, whole)


def test_processes_of_one_call_share_the_work(tmp_path, whole):
    # Two threads for two processes are one each, as in the other folder.
    torch.set_num_threads(2)
    train_all(tmp_path, processes=2)
    torch.set_num_threads(1)
    assert names_in(tmp_path) == names_in(whole)
    assert_same(tmp_path, whole)


def test_more_networks_later_keep_the_earlier(tmp_path, whole):
    train_all(tmp_path, 2)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path)}
    train_all(tmp_path, 3)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert_same(tmp_path, whole)


def endless(folder, start_method):
    """A call for several processes, as the leader of a terminal of its own, that tells whether it was interrupted."""
    os.setsid()
    training_runs._START_METHOD = start_method
    try:
        train_all(folder, 2, Recipe(width=4, epochs=100_000), processes=2)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()


def locks_held(folder):
    held = 0
    for lock in folder.glob(".*.lock"):
        with training_runs._claimed(folder / (lock.name[1 : -len(".lock")] + ".safetensors")) as mine:
            held += not mine
    return held


@pytest.mark.parametrize(("how", "start_method"), [(signal.SIGINT, "spawn"), (signal.SIGKILL, "fork")])
def test_children_end_with_their_parent(tmp_path, capfd, how, start_method):
    parent = processes.Process(target=endless, args=(tmp_path, start_method))
    parent.start()
    wait_until(lambda: locks_held(tmp_path) == 2)
    # Ctrl-C goes to all the processes of the terminal.
    (os.killpg if how == signal.SIGINT else os.kill)(parent.pid, how)
    wait_until(lambda: locks_held(tmp_path) == 0, seconds=15)
    parent.join(15)
    if how == signal.SIGINT:
        assert parent.exitcode == 0 and names_in(tmp_path) == ["interrupted"]
        assert "Traceback" not in capfd.readouterr().err
    else:
        assert parent.exitcode == -how


def test_a_child_that_fails_is_named_and_the_others_are_stopped(tmp_path, monkeypatch):
    # Something that children cannot do and their parent does not notice.
    def one_that_fails(job, n_processes, devices, advance):
        broken = job._replace(recipe=replace(job.recipe, learning_rate="fast"))
        return in_processes(broken, n_processes, devices, advance)

    in_processes = training_runs._train_in_processes
    monkeypatch.setattr(training_runs, "_train_in_processes", one_that_fails)
    monkeypatch.setattr(training_runs, "_START_METHOD", "forkserver")
    with pytest.raises(ChildProcessError) as caught:
        train_all(tmp_path, 2, processes=2)
    message = str(caught.value)
    assert re.search(r"failed with \w+Error: .*, in the training of .*memorization-000[01]\.safetensors", message)
    assert "\n" not in message and not list(tmp_path.iterdir())


def test_an_error_in_this_process_is_itself_and_names_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(training_runs, "train", lambda *_, **__: fail())
    with pytest.raises(MemoryError, match="no room") as caught:
        train_all(tmp_path)
    assert NAMES[0] in caught.value.__notes__[0] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": Recipe(width=4, epochs=2)}, "memorization-0000.safetensors is a network of epochs = 1, not 2"),
        ({"recipe": Recipe(width=4, epochs=1, noise=0.5)}, "noise = 0.0, not 0.5"),
        ({"labels": True}, "is a network of other images or labels"),
        ({"runs": [TrainingRun(NAMES[0], torch.arange(200) < 100, 4)]}, "another choice of training examples"),
        ({"seed": 5}, "is a network of seed"),
        ({"damage": True}, "memorization-0000.safetensors is damaged"),
    ],
    ids=["epochs", "noise", "labels", "included", "seed", "damage"],
)
def test_a_file_of_something_else_is_refused_before_training(tmp_path, whole, images, change, message):
    file = tmp_path / f"{NAMES[0]}.safetensors"
    content = bytearray((whole / file.name).read_bytes())
    content[-5] ^= "damage" in change
    file.write_bytes(content)
    runs = change.get("runs") or subset_runs(3, 200, seed=4)
    if "seed" in change:
        runs = [run._replace(seed=5) for run in runs]
    labels = images.train_labels.roll(1) if "labels" in change else images.train_labels
    with pytest.raises(ValueError, match=re.escape(message)):
        train_runs(tmp_path, images, labels, runs, change.get("recipe", RECIPE), device="cpu", progress=False)
    assert names_in(tmp_path) == [file.name]


def test_a_file_that_another_process_writes_meanwhile_is_checked_too(tmp_path, whole, monkeypatch):
    train_run = training_runs._train_run

    def with_another(job, run, device):
        train_run(job, run, device)
        train_run(job._replace(recipe=replace(RECIPE, weight_decay=0.25)), 1, device)

    monkeypatch.setattr(training_runs, "_train_run", with_another)
    with pytest.raises(ValueError, match=r"0001.safetensors is a network of weight_decay = 0.25, not 0.0005"):
        train_all(tmp_path, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": []}, "there are no runs"),
        ({"runs": [("a", 200), ("a", 200)]}, "2 runs are named 'a'"),
        ({"runs": [("../a", 200)]}, "'../a', which makes no file name"),
        ({"runs": [(".a", 200)]}, "'.a', which makes no file name"),
        ({"runs": [("a", 199)]}, "included of run 'a' is torch.bool of shape [199], but there are 200"),
        ({"runs": [("a", 0)]}, "run 'a' includes fewer than two examples"),
        ({"labels": torch.zeros(199, dtype=torch.int64)}, "labels are torch.int64 of shape [199]"),
        ({"labels": torch.zeros(200)}, "labels are torch.float32"),
        ({"labels": torch.full((200,), 10)}, "labels run from 10 to 10, but there are 10 class names"),
        ({"recipe": Recipe(network="resnet81")}, "there is no network 'resnet81'"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, images, change, message):
    chosen = change.get("runs", [("a", 200)])
    runs = [TrainingRun(name, torch.ones(n or 200, dtype=torch.bool) * bool(n), 0) for name, n in chosen]
    with pytest.raises(ValueError, match=re.escape(message)):
        train_runs(
            tmp_path / "runs",
            images,
            change.get("labels", images.train_labels),
            runs,
            change.get("recipe", RECIPE),
            processes=change.get("processes", 1),
            progress=False,
        )
    assert not (tmp_path / "runs").exists()


def test_wrong_paths_and_images_are_named(tmp_path, whole, images):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, but the networks need a folder"):
        train_all(tmp_path / "file")
    for load in (lambda: load_run(whole, "network", images), lambda: load_predictions(whole, "network")):
        with pytest.raises(FileNotFoundError, match=r"there is no file .*network.safetensors"):
            load()
    with pytest.raises(ValueError, match=r"is of a network for images of .*'classes': 10.*, not .*'classes': 3"):
        load_run(whole, NAMES[0], images._replace(class_names=("a", "b", "c")))
    with pytest.raises(ValueError, match="dtype is 'half'"):
        Recipe(dtype="half")


def test_subsets_have_the_share_and_are_drawn_one_by_one(seed):
    runs = subset_runs(60, 301, 0.7, seed)
    assert [run.name for run in runs[:2]] == ["memorization-0000", "memorization-0001"]
    included = torch.stack([run.included for run in runs])
    assert included.dtype == torch.bool and (included.sum(1) == 211).all()
    # An example is in each with probability 211/301, so in 42 of 60 with standard deviation 3.5: six of them.
    assert ((included.sum(0) - 60 * 211 / 301).abs() < 6 * 3.55).all()
    # Two subsets share 211^2 / 301 examples, standard deviation 3.7.
    overlap = (included[1:] & included[:-1]).sum(1)
    assert ((overlap - 211**2 / 301).abs() < 6 * 3.7).all()
    assert len({run.seed for run in runs}) == 60
    for more, one in zip(subset_runs(70, 301, 0.7, seed), runs, strict=False):
        assert more.name == one.name and more.seed == one.seed and torch.equal(more.included, one.included)
    assert not torch.equal(subset_runs(1, 301, 0.7, seed + 1)[0].included, runs[0].included)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "n_networks is 0"),
        ((1, 10, 1.0), "a share of 1.0 of 10 examples leaves none in or none out"),
        ((1, 10, 0.0), "a share of 0.0 of 10"),
        ((1, 10, float("nan")), "a share of nan"),
        ((1, 10, 0.01), "a share of 0.01 of 10"),
        ((1, 10, 0.7, -1), "seed is -1"),
    ],
)
def test_impossible_subsets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        subset_runs(*arguments)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_each_bin_is_left_out_once(rng, kind):
    bins = rng.permutation(np.arange(90) % 4)
    runs = left_out_runs(kind(bins), 4, seed=9)
    assert [run.name for run in runs] == [f"without-bin-{b}" for b in range(4)]
    for b, run in enumerate(runs):
        np.testing.assert_array_equal(run.included.numpy(), bins != b)
        assert run.seed == 9 and run.included.dtype == torch.bool


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([0, 1, 3], "an example is in bin 3, but the 3 bins"),
        ([0, -1, 2], "an example is in bin -1"),
        ([0, 2, 2], "bin 1 has 0 of the 3 examples"),
        ([0.0, 1.0, 2.0], "bins are torch.float32"),
        ([[0, 1, 2]], "bins are torch.int64 of shape [1, 3]"),
    ],
)
def test_impossible_bins_are_refused(bins, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        left_out_runs(bins, 3)
    with pytest.raises(ValueError, match="bin 0 has 3 of the 3 examples"):
        left_out_runs([0, 0, 0], 1)

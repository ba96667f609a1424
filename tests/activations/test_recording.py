"""What layers put out, against forward passes by hand: changed later, called again, wrapped, compiled."""

from __future__ import annotations

import copy
import warnings
import weakref
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
import torchvision
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from fastdens.activations import extract


def plain_tensors(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).float()


class Adds(nn.Module):
    """Adds to what its layer put out, in place."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        y = self.inner(x)
        y += x
        return y.mul_(2)


class Repeats(nn.Module):
    """Runs its layers several times in a pass."""

    def __init__(self, n=3):
        super().__init__()
        self.n, self.step, self.act = n, nn.Linear(4, 4), nn.ReLU(inplace=True)
        self.same = self.step

    def forward(self, x):
        for _ in range(self.n):
            x = self.act(self.step(x))
        return x


@pytest.mark.parametrize(
    ("make", "layer", "n_before"),
    [
        (lambda: nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), "0", 1),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Hardtanh(inplace=True), nn.SiLU(inplace=True)), "0", 1),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Flatten(), nn.Dropout(inplace=True), nn.ELU(inplace=True)), "1", 2),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), Adds()), "1", 2),
    ],
)
@pytest.mark.parametrize("pool", ["avg", "max", "flatten", lambda t: t, lambda t: t[:, :2]])
def test_outputs_are_kept_as_they_were_put_out(rng, make, layer, n_before, pool):
    model, x = make().eval(), plain_tensors(rng, 5, 3)
    with torch.no_grad():
        expected = model[:n_before](x.clone()).clone()
    found = extract(model, [x], [layer], pool, progress=False).features[layer]
    assert torch.equal(found, pool(expected) if callable(pool) else expected)


def test_a_residual_sum_in_place(rng):
    model, x = Adds().eval(), plain_tensors(rng, 5, 3)
    torch.testing.assert_close(
        extract(model, [x], ["inner"], progress=False).features["inner"], model.inner(x).detach()
    )


def test_every_layer_of_a_resnet(rng):
    model = torchvision.models.resnet18(num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
    x, expected, once = plain_tensors(rng, 3, 3, 32, 32), {}, {}
    # Each layer is run by hand in a network that does nothing in place.
    still = copy.deepcopy(model)
    for module in still.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    for name, module in still.named_modules():
        if name and not list(module.children()) and not isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, _i, out, name=name: expected.update({name: out.clone()}))
            once[name] = module
    with torch.no_grad():
        still(x)
    found = extract(model, [x], list(once), progress=False).features
    for name, value in expected.items():
        pooled = value.mean((2, 3)) if value.ndim == 4 else value
        torch.testing.assert_close(found[name], pooled, atol=1e-5, rtol=1e-4, msg=name)


def test_outputs_are_not_held_until_the_end_of_a_pass(rng):
    outputs, alive = [], []

    class Watched(nn.Module):
        def forward(self, x):
            outputs.append(weakref.ref(y := x + 1))
            alive.append(sum(output() is not None for output in outputs))
            return y

    model = nn.Sequential(*[Watched() for _ in range(12)])
    x = plain_tensors(rng, 2, 3, 4, 4)
    found = extract(model, [x, x], [str(k) for k in range(12)], progress=False).features
    torch.testing.assert_close(found["11"][2:], x.mean((2, 3)) + 12)
    assert max(alive) <= 2


def test_calls_of_a_layer_that_runs_several_times(rng):
    model, x = Repeats(), plain_tensors(rng, 5, 4)
    with torch.no_grad():
        steps, acts, value = [], [], x
        for _ in range(3):
            steps.append(model.step(value))
            acts.append(steps[-1].relu())
            value = acts[-1]
    choices = {"first": 0, "last": 2, 0: 0, 1: 1, 2: 2, -1: 2, -2: 1, -3: 0}
    for calls, at in choices.items():
        found = extract(model, [x[:3], x[3:]], ["step", "act"], calls=calls, progress=False).features
        torch.testing.assert_close(found["step"], steps[at])
        torch.testing.assert_close(found["act"], acts[at])
    found = extract(model, [x], ["act", "step"], calls={"act": "all", "step": 1}, progress=False).features
    torch.testing.assert_close(found["act"], torch.cat(acts, 1))
    torch.testing.assert_close(found["step"], steps[1])
    # A module with two names is the same module.
    assert torch.equal(extract(model, [x], ["same"], calls=1, progress=False).features["same"], found["step"])


@pytest.mark.parametrize("calls", [None, "first", "last", "all", 0, -1])
def test_a_layer_that_runs_once_needs_no_choice(rng, calls):
    model, x = Repeats(1), plain_tensors(rng, 5, 4)
    found = extract(model, [x], ["step"], calls=calls, progress=False).features["step"]
    torch.testing.assert_close(found, model.step(x).detach())


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        (None, "layer 'step' ran 3 times .* calls='first', 'last', 'all' or an index"),
        (3, "ran 3 times .* there is no call 3: pass calls from -3 to 2"),
        (-4, "there is no call -4"),
        ("second", "calls is 'second'"),
        (1.5, "calls is 1.5"),
        (True, "calls is True"),
        ({"stop": 1}, "calls names the layer 'stop'.*'step'"),
        ({}, "ran 3 times"),
    ],
)
def test_calls_that_there_are_not(rng, calls, message):
    with pytest.raises(ValueError, match=message):
        extract(Repeats(), [plain_tensors(rng, 5, 4)], ["step"], calls=calls, progress=False)


def test_batches_of_wrapped_networks_are_what_the_network_takes(rng):
    network, x = Network().eval(), plain_tensors(rng, 5, 3)
    for wrap in (DataParallel, AveragedModel, lambda model: torch.compile(model, backend="eager")):
        for key in ("x", "image"):
            found = extract(wrap(network), [{key: x, "label": torch.arange(5)}], ["head"], progress=False)
            torch.testing.assert_close(found.features["head"], network(x).detach())
            assert torch.equal(found.labels, torch.arange(5))


@contextmanager
def one_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.features(x))


def wrapped_inside(model, wrap):
    model.features = wrap(model.features)
    return model


WRAPPERS = {
    "data_parallel": DataParallel,
    "averaged": AveragedModel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled_aot": lambda model: torch.compile(model, backend="aot_eager"),
    "compiled_parallel": lambda model: torch.compile(DataParallel(model), backend="eager"),
    "parallel_compiled": lambda model: DataParallel(torch.compile(model, backend="eager")),
    "parallel_inside": lambda model: wrapped_inside(model, DataParallel),
    "compiled_inside": lambda model: wrapped_inside(model, lambda part: torch.compile(part, backend="eager")),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch.compiler.reset()


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("already_run", [False, True])
@pytest.mark.parametrize("wrap", [*WRAPPERS.values(), compiled_in_place], ids=[*WRAPPERS, "compiled_in_place"])
def test_wrapped_networks(rng, wrap, already_run):
    network, x = Network(), plain_tensors(rng, 5, 3)
    network(plain_tensors(rng, 50, 3))
    model = wrap(copy.deepcopy(network))
    network.eval()
    if already_run:
        with torch.no_grad():
            model.eval()(x)
        model.train()
    with torch.no_grad():
        expected = {"features.1": network.features[:2](x), "head": network(x)}
    full = {name for name, _ in model.named_modules() if name.endswith(("features.1", "features.module.1", "head"))}
    full |= {f"module.{name}" for name in expected} | {f"_orig_mod.{name}" for name in expected}
    for names in (list(expected), sorted(full)):
        found = extract(model, [x[:2], x[2:]], names, progress=False)
        assert found.layers == tuple(names)
        for name, value in found.features.items():
            torch.testing.assert_close(value, expected["head" if "head" in name else "features.1"])
    assert model.training
    # It is still compiled, and still trains.
    model(x).sum().backward()


def test_distributed_networks(rng, tmp_path):
    network, x = Network(), plain_tensors(rng, 5, 3)
    network(plain_tensors(rng, 50, 3))
    with one_process_group(tmp_path), torch.no_grad():
        model = DistributedDataParallel(copy.deepcopy(network))
        expected = network.eval().features(x)
        for name in ("features", "module.features"):
            found = extract(model, [x], [name], progress=False).features[name]
            torch.testing.assert_close(found, expected)
        assert model.require_forward_param_sync and model.require_backward_grad_sync
        with torch.enable_grad():
            for _ in range(2):
                model(x).sum().backward()


def test_replicas_are_not_made(rng, monkeypatch):
    # Without GPUs, the wrapper is told that there are two.
    model, x = DataParallel(Network()), plain_tensors(rng, 5, 3)
    model.device_ids, seen = [0, 1], []
    monkeypatch.setattr(
        DataParallel, "forward", lambda self, x: (seen.append(list(self.device_ids)), self.module(x))[1]
    )
    extract(model, [x], ["head"], progress=False)
    assert seen == [[0]] and model.device_ids == [0, 1]


def test_a_wrong_name_in_a_wrapped_network_suggests_names_without_the_wrapper(rng):
    with pytest.raises(ValueError, match=r"no layer 'features\.7'.*'features\.[0-2]'"):
        extract(DataParallel(Network()), [plain_tensors(rng, 2, 3)], ["features.7"], progress=False)


@pytest.mark.parametrize("traced", [True, False])
def test_layers_that_cannot_be_heard_are_named(rng, traced):
    x = plain_tensors(rng, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(Network().eval(), x) if traced else torch.jit.script(Network())
    with pytest.raises(ValueError, match=r"'head' (did not run .* not scripted|cannot be recorded .* scripted)"):
        extract(scripted, [x], ["head"], progress=False)
    with pytest.raises(TypeError, match="layers holds Linear, but layers are given by their names"):
        extract(Network(), [x], [Network().head], progress=False)
    with pytest.raises(TypeError, match="model is function"):
        extract(lambda x: x, [x], ["head"], progress=False)


@pytest.mark.parametrize("name", ["layers.0", "layers.1.linear1", "layers.1.self_attn", "layers.0.norm2"])
def test_transformers_outside_of_their_fast_path(rng, name):
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), plain_tensors(rng, 5, 7, 4)
    kept = {}
    model.get_submodule(name).register_forward_hook(lambda _m, _i, out: kept.update(out=out))
    with torch.no_grad():
        model(x)
    out = kept["out"][0] if isinstance(kept["out"], tuple) else kept["out"]
    torch.testing.assert_close(extract(model, [x], [name], progress=False).features[name], out.mean(1))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_replicas_on_several_gpus(rng):
    network, x = Network().cuda(), plain_tensors(rng, 6, 3).cuda()
    found = extract(DataParallel(network), [x], ["head"], progress=False).features["head"]
    torch.testing.assert_close(found, network.eval()(x).detach().cpu())

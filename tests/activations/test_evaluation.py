"""A network is given back as it was, by everything that runs one."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastdens.activations import evaluating, extract
from fastdens.analysis import certify, pgd_accuracy
from fastdens.training import predict
from tests.activations.test_recording import one_process_group, plain_tensors

B, D, K = 6, 4, 3
pytestmark = pytest.mark.filterwarnings("ignore:the gradient of the model is zero")


def extracts(model, x):
    return extract(
        model, x.split(4), [next(name for name, _ in model.named_modules() if name)], calls="first", progress=False
    )


def certifies(model, x):
    return certify(model, x, 0.5, n0=3, n=10, batch_size=4, progress=False)


def attacks(model, x):
    return pgd_accuracy(model, x, [0] * len(x), 0.1, steps=2)


def predicts(model, x):
    return predict(model, x, batch_size=4)


@pytest.fixture(params=[extracts, certifies, attacks, predicts])
def visit(request):
    return request.param


@pytest.fixture
def x(rng):
    return plain_tensors(rng, B, D)


class Net(nn.Module):
    """A network with a layer of the given kind."""

    def __init__(self, layer=None):
        super().__init__()
        self.first = nn.Linear(D, 5)
        self.layer = nn.Identity() if layer is None else layer
        self.norm, self.drop, self.head = nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, K)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.layer(self.first(x)).relu_())))


class Cache(nn.Module):
    """Fills a cache on its first pass, as rotary embeddings and position tables do."""

    def __init__(self, how):
        super().__init__()
        self.how, self.table = how, {}
        self.weight = nn.Parameter(torch.ones(5))
        if how == "buffer":
            self.register_buffer("cache", None, persistent=False)
        else:
            self.cache = None

    def forward(self, x):
        if self.how == "dict":
            return x * self.table.setdefault(x.shape[1], torch.arange(5.0)).mul(self.weight)
        if self.cache is None:
            self.cache = torch.arange(5.0) + 1
        return x * self.cache * self.weight


class Counts(nn.Module):
    """Changes its buffers in every pass, whatever the mode."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.register_buffer("n", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.full((5,), torch.nan))
        self.register_buffer("seen", torch.zeros(5, dtype=torch.bool))

    def forward(self, x):
        mean = x.detach().mean(0)
        if self.how == "in_place":
            self.n += 1
            self.mean.copy_(mean)
            self.seen |= mean > 0
        elif self.how == "data":
            self.n.data.add_(1)
            self.mean.data = mean
        elif self.how == "resized":
            self.mean.resize_(2).zero_()
        else:
            self.n, self.mean = self.n + 1, mean
        return x


class AlwaysTraining(nn.Module):
    """Normalizes by the batch and keeps averages, whatever the mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        self.norm.train(len(x) > 1)
        return self.norm(x)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


def snapshot(model):
    """All that is to stay: values, their identity, modes, hooks, gradients."""
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "objects": [id(own) for own in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in model.modules()],
        "hooks": [list(module._forward_hooks.items()) for module in model.modules()],
        "gradients": [(p.requires_grad, p.grad) for p in model.parameters()],
        "numbers": torch.get_rng_state(),
    }


def assert_same(before, after):
    for name, value in before.pop("values").items():
        torch.testing.assert_close(after["values"][name], value, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(before.pop("numbers"), after["numbers"])
    assert before == {name: after[name] for name in before}


@pytest.mark.parametrize(
    "layer",
    [
        nn.Identity,
        nn.BatchNorm1d,
        AlwaysTraining,
        Noise,
        lambda: nn.utils.spectral_norm(nn.Linear(5, 5)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)),
        *[lambda how=how: Counts(how) for how in ("in_place", "data", "replaced", "resized")],
    ],
)
def test_nothing_is_left_behind(visit, x, layer):
    model = Net(layer(5) if layer is nn.BatchNorm1d else layer())
    model.norm.eval()
    model.first.bias.requires_grad_(False)
    seen = []
    model.head.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    before, inputs = snapshot(model), x.clone()
    visit(model, x)
    assert_same(before, snapshot(model))
    assert torch.equal(x, inputs)
    assert seen and (visit is attacks or not any(seen))


def test_inputs_stay_as_they_are(visit, x):
    inputs = x.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Identity(), Net())
    assert visit(model, x) is not None and torch.equal(x, inputs)


@pytest.mark.parametrize("how", ["attribute", "buffer", "dict"])
@pytest.mark.parametrize("surroundings", [nullcontext, torch.no_grad, torch.inference_mode])
def test_caches_of_a_first_pass_can_be_trained_with(visit, x, how, surroundings):
    model = Net(Cache(how))
    with surroundings():
        visit(model, x.clone())
    model.train()
    for _ in range(2):
        model(x).sum().backward()
    assert model.layer.weight.grad is not None


def test_lazy_modules_can_be_trained_after_their_first_pass(x):
    model = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU(inplace=True), nn.LazyLinear(K))
    found = extract(model, [x], ["0", "3"], progress=False).features
    assert torch.equal(found["0"], model[0](x).detach()) and model.training
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_buffers_that_an_attribute_describes_stay(visit, x):
    class Initialized(nn.Module):
        def __init__(self):
            super().__init__()
            self.initialized = False
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, x):
            if not self.initialized:
                self.mean.copy_(x.detach().mean(0))
                self.initialized = True
            return x - self.mean

    model = Net(Initialized())
    visit(model, x)
    assert model.layer.initialized and model.layer.mean.any()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_a_pass_that_fails(visit, x, error):
    class Fails(Counts):
        def forward(self, x):
            x = super().forward(x) + torch.rand(())
            if self.n > 1:
                raise error("in the midst")
            return x

    model = Net(Fails("in_place"))
    before = snapshot(model)
    with pytest.raises(error, match="in the midst") as caught:
        visit(model, x)
    # While the exception is held, too.
    assert caught.value
    assert_same(before, snapshot(model))


@pytest.mark.parametrize("path", [None, "folder", "file.safetensors"])
def test_nothing_is_left_behind_by_a_loader_that_fails(x, tmp_path, path):
    def loader():
        yield x
        raise RuntimeError("no more files")

    model = Net()
    before = snapshot(model)
    path = None if path is None else tmp_path / path
    with pytest.raises(RuntimeError, match="no more files") as caught:
        extract(model, loader(), ["head"], path=path, progress=False)
    assert caught.value
    assert_same(before, snapshot(model))


def test_modes_change_without_calls_of_train(visit, x):
    class Merges(Net):
        def train(self, mode=True):
            # As low-rank adapters do, which does not come back to the same bits.
            with torch.no_grad():
                self.head.weight.mul_(3 if mode else 1 / 3)
            return super().train(mode)

    model = Merges()
    before = snapshot(model)
    visit(model, x)
    assert_same(before, snapshot(model))


def test_numbers_of_a_network_go_on_from_batch_to_batch(x):
    model = nn.Sequential(Noise())
    x = torch.zeros(400, D)
    torch.manual_seed(5)
    first = extract(model, x.split(100), ["0"], progress=False).features["0"]
    assert len(first.unique(dim=0)) == 400
    assert torch.equal(extract(model, x.split(100), ["0"], progress=False).features["0"], first)

    # The loader draws as it would without a network.
    def shuffled():
        for _ in range(3):
            yield x[:2] + torch.rand(2, D)

    torch.manual_seed(5)
    expected = torch.cat([batch + 0 for batch in shuffled()])
    torch.manual_seed(5)
    found = extract(nn.Sequential(nn.Identity(), Noise()), shuffled(), ["0"], progress=False).features["0"]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("surroundings", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_results_are_those_of_any_surroundings(visit, x, surroundings):
    model = Net()
    expected = visit(model, x)
    with surroundings():
        found = visit(model, x.clone())
    for name in ("features", "robust", "n_selected"):
        if hasattr(expected, name):
            left, right = getattr(expected, name), getattr(found, name)
            assert torch.equal(left["first"], right["first"]) if name == "features" else (left == right).all()
    if visit is extracts:
        assert not found.features["first"].is_inference()


def test_inner_gradients_are_detached(x):
    class Force(nn.Module):
        """A derivative within a pass, as of an energy."""

        def __init__(self):
            super().__init__()
            self.energy = nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 1))

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad(self.energy(x).sum(), x)[0]

    model = Force()
    found = extract(model, [x], ["energy.1"], progress=False).features["energy.1"]
    assert torch.equal(found, model.energy[:2](x).detach()) and not found.requires_grad


def test_distributed_networks_train_on(visit, x, tmp_path):
    network = Net()
    expected = visit(copy.deepcopy(network), x)
    with one_process_group(tmp_path):
        model = DistributedDataParallel(network)
        for _ in range(2):
            model(x).sum().backward()
            found = visit(model, x)
        model(x).sum().backward()
        assert model.require_forward_param_sync and model.require_backward_grad_sync
    assert type(found) is type(expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_networks(visit, x, backend):
    model = torch.compile(Net(), backend=backend)
    model(x).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    visit(model, x)
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(x).sum().backward()
    torch.compiler.reset()


def test_exported_programs(visit, x):
    # Their modes must not be set by `eval`.
    model = torch.export.export(Net().eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    if visit is extracts:
        pytest.skip("an exported program has no layers")
    assert visit(model, x) is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_and_inputs_of_other_types(visit, x, dtype):
    model = Net()
    visit(copy.deepcopy(model).to(dtype), x)
    visit(model, x.to(dtype))


def test_outputs_of_other_libraries(visit, x):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return {"loss": x.sum(), "logits": self.net(x)}

    assert visit(Wrapped(), x) is not None


def test_the_function_that_runs_the_network_passes_its_arguments(x):
    class Scaled(nn.Module):
        def forward(self, x, *, scale):
            return x * scale

    with evaluating(Scaled()) as run:
        assert torch.equal(run(x, scale=3), 3 * x)

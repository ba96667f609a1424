"""Which tensor of an output is kept, and how it becomes one vector an example."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastdens.activations import extract
from tests.activations.test_recording import plain_tensors

B, D = 5, 3
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
Pair = namedtuple("Pair", ["mean", "deviation"])


class ModelOutput(OrderedDict):
    """A dict, a tuple by index, and an object with attributes, as Hugging Face models give."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key):
        return super().__getitem__(key) if isinstance(key, str) else tuple(self.values())[key]


@dataclass
class Encoded(ModelOutput):
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    hidden_states: tuple | None = None


@dataclass
class Classified(ModelOutput):
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple | None = None


@dataclass
class Own:
    mean: torch.Tensor
    extra: object = None


class Plain:
    def __init__(self, **parts):
        self.__dict__.update(parts)


class Gives(nn.Module):
    """Gives what a function makes of three different tensors [B, D] that are linear in the input."""

    def __init__(self, make):
        super().__init__()
        self.inner = nn.Module()
        self.inner.forward = lambda x: make(x, 2 * x, 3 * x)

    def forward(self, x):
        self.inner(x)
        return x


@pytest.fixture
def x(rng):
    return plain_tensors(rng, B, D)


def kept(make, x, **options):
    return extract(Gives(make), [x], ["inner"], progress=False, **options).features["inner"]


@pytest.mark.parametrize(
    ("make", "factor"),
    [
        (lambda a, b, c: (b, (a, c)), 2),
        (lambda a, b, c: [c, None], 3),
        (lambda a, b, c: (None, b), 2),
        (lambda a, b, c: ((b, a), c), 2),
        (lambda a, b, c: Pair(c, b), 3),
        (lambda a, b, c: {"out": b}, 2),
        (lambda a, b, c: {"loss": a.sum(), "logits": c, "cache": (a, b)}, 3),
        (lambda a, b, c: {"deeper": {"out": [b]}}, 2),
        (lambda a, b, c: Own(c, "text"), 3),
        (lambda a, b, c: Plain(features=b, _own=a, name="text"), 2),
        (lambda a, b, c: Encoded(b, c, (a, b)), 2),
        (lambda a, b, c: Classified(loss=a.sum(), logits=c), 3),
        (lambda a, b, c: Classified(logits=c, hidden_states=(a, b)), 3),
    ],
)
def test_the_plain_meaning_of_an_output(x, make, factor):
    assert torch.equal(kept(make, x), factor * x)


@pytest.mark.parametrize(
    ("make", "part", "factor"),
    [
        (lambda a, b, c: (a, (b, c)), (1, 1), 3),
        (lambda a, b, c: (a, (b, c)), -1, 2),
        (lambda a, b, c: Pair(a, b), "deviation", 2),
        (lambda a, b, c: {"out": a, "aux": b}, "aux", 2),
        (lambda a, b, c: {3: a, 4: b}, 4, 2),
        (lambda a, b, c: Own(a, {"deeper": [c]}), ("extra", "deeper", 0), 3),
        (lambda a, b, c: Plain(mean=a, deviation=c), "deviation", 3),
        (lambda a, b, c: torch.distributions.Normal(a, c.exp()), "mean", 1),
        (lambda a, b, c: Encoded(a, b, (a, c)), ("hidden_states", -1), 3),
        (lambda a, b, c: Encoded(a, b, (a, c)), 1, 2),
        (lambda a, b, c: (a, b), lambda output: output[1], 2),
        (lambda a, b, c: c, "whatever", 3),
    ],
)
def test_a_part_by_name(x, make, part, factor):
    assert torch.equal(kept(make, x, output=part), factor * x)
    assert torch.equal(kept(make, x, output={"inner": part}), factor * x)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda a, b, c: {"out": a, "aux": b}, {}, r"'out' \(\[5, 3\]\), 'aux' .* output='out'"),
        (lambda a, b, c: Own(a, b), {}, "Own of 'mean' .* output='mean'"),
        (lambda a, b, c: torch.distributions.Normal(a, c.exp()), {}, "Normal of 'loc'"),
        (lambda a, b, c: (a, b), {"output": 2}, "no 2: pass one of these as output"),
        (lambda a, b, c: {"out": a}, {"output": "aux"}, r"dict of 'out' .*no 'aux'"),
        (lambda a, b, c: "text", {}, "gives str, not a tensor"),
        (lambda a, b, c: None, {"output": 0}, "NoneType of no parts"),
        (lambda a, b, c: {"loss": a.sum()}, {}, "gives dict, not a tensor"),
        (lambda a, b, c: {}, {}, "gives dict, not a tensor"),
        (lambda a, b, c: a.to(torch.complex64), {}, "complex numbers"),
        (lambda a, b, c: torch.nested.nested_tensor([a, b[:2]]), {"pool": "flatten"}, "examples of different lengths"),
        (lambda a, b, c: a.sum(), {}, r"gives \(\) for 5 inputs"),
        (lambda a, b, c: a.sum(), {"pool": "flatten"}, r"gives \(\) for 5 inputs"),
        (lambda a, b, c: a[:2], {}, r"gives \(2, 3\) for 5 inputs"),
        (lambda a, b, c: a, {"pool": lambda t: t.tolist()}, "pooled to list"),
        (lambda a, b, c: a, {"output": {"outer": 0}}, "output names the layer 'outer'"),
    ],
)
def test_what_is_not_plain_is_one_sentence(x, make, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        kept(make, x, **options)
    assert "layer 'inner'" in str(caught.value) or "the layer 'outer'" in str(caught.value)


@pytest.mark.parametrize("pool", ["avg", "max", "flatten"])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_whatever_their_batch_axis(rng, kind, batch_first, pool):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = kind(D, 4, num_layers=2, bidirectional=True, batch_first=batch_first)
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            out, _ = self.rnn(x if batch_first else x.transpose(0, 1))
            return self.head(out)

    model = Net()
    # One length is that of the batch: which axis is which shows in the module, or in the batch before.
    for n_tokens in (7, B):
        x = plain_tensors(rng, B, n_tokens, D)
        other = plain_tensors(rng, 2, n_tokens, D)
        found = extract(model, [other, x], ["rnn", "head"], pool, progress=False).features
        with torch.no_grad():
            out = model.rnn(x if batch_first else x.transpose(0, 1))[0]
            for name, value in {"rnn": out, "head": model.head(out)}.items():
                tokens = value if batch_first else value.transpose(0, 1)
                expected = {"avg": tokens.mean(1), "max": tokens.amax(1), "flatten": tokens.flatten(1)}[pool]
                torch.testing.assert_close(found[name][2:], expected)


def test_which_axis_counts_the_inputs_is_asked_where_it_cannot_be_told(rng):
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    model = nn.Sequential(nn.Identity(), layer).eval()
    x = plain_tensors(rng, B, B, 4)
    with pytest.raises(ValueError, match="which of the two axes counts the inputs cannot be told"):
        extract(model, [x], ["1.norm2"], progress=False)
    found = extract(model, [x], ["1.norm2", "1"], lambda t: t[0], progress=False).features
    torch.testing.assert_close(found["1.norm2"], layer(x)[0].detach())
    # The layers of torch say what their axes are.
    torch.testing.assert_close(extract(model, [x], ["1"], progress=False).features["1"], layer(x).mean(0).detach())
    with pytest.raises(ValueError, match=r"gives \(7, 5, 4\) for 7 inputs"):
        extract(model, [plain_tensors(rng, 7, B, 4)], ["1"], progress=False)


def test_states_of_recurrent_layers(rng):
    model = nn.Sequential(nn.LSTM(D, 4, batch_first=True))
    x = plain_tensors(rng, B, 7, D)
    with torch.no_grad():
        _, (h, c) = model(x)
    for part, value in {(1, 0): h, (1, 1): c}.items():
        assert torch.equal(extract(model, [x], ["0"], output=part, progress=False).features["0"], value[0])


def test_packed_sequences_are_unpacked_by_a_function(rng):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(D, 4, batch_first=True)

        def forward(self, x):
            return self.rnn(pack_padded_sequence(x, [7, 6, 4, 2, 1], batch_first=True))

    model, x = Net(), plain_tensors(rng, B, 7, D)
    with pytest.raises(ValueError, match="pass as output a function"):
        extract(model, [x], ["rnn"], output=0, progress=False)

    def unpacked(output):
        return pad_packed_sequence(output[0], batch_first=True)[0]

    found = extract(model, [x], ["rnn"], output=unpacked, progress=False).features["rnn"]
    torch.testing.assert_close(found, unpacked(model(x)).mean(1).detach())


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention(rng, batch_first):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)

        def forward(self, x):
            tokens = x if batch_first else x.transpose(0, 1)
            return self.attention(tokens, tokens, tokens)[0].mean(1 if batch_first else 0)

    model, x = Net().eval(), plain_tensors(rng, B, 6, 4)
    found = extract(model, [x], ["attention"], progress=False).features["attention"]
    torch.testing.assert_close(found, model(x).detach())


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_padded_examples_that_torch_packs_on_its_way(rng, pool):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)

        def forward(self, x, mask):
            return self.encoder(x, src_key_padding_mask=mask)

    model, x, lengths = Net().eval(), plain_tensors(rng, B, 7, 4), [7, 5, 6, 1, 2]
    mask = torch.arange(7)[None] >= torch.tensor(lengths)[:, None]
    found = extract(
        model, [(x, mask)], ["encoder", "encoder.layers.0", "encoder.layers.1.linear1"], pool, progress=False
    )
    with torch.no_grad():
        assert torch.equal(found.features["encoder"], getattr(model(x, mask), {"avg": "mean", "max": "amax"}[pool])(1))
        for example, length in enumerate(lengths):
            alone = extract(
                model.encoder,
                [x[example : example + 1, :length]],
                ["layers.0", "layers.1.linear1"],
                pool,
                progress=False,
            )
            for name, value in alone.features.items():
                torch.testing.assert_close(found.features[f"encoder.{name}"][example], value[0], atol=1e-5, rtol=1e-4)


def test_half_precision_is_pooled_in_float32_and_double_in_double(rng):
    # The mean of 3,000 values near 1,000 has no more than three digits in half precision.
    values = torch.from_numpy(1000 + rng.normal(size=(B, 2, 60, 50)))
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        x = values.to(dtype)
        found = extract(nn.Sequential(nn.Identity()), [x], ["0"], progress=False).features["0"]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, x.double().mean((2, 3)).float(), rtol=1e-6, atol=0)


def test_one_number_an_example_is_a_vector_of_one(x):
    assert torch.equal(kept(lambda a, b, c: b[:, 0], x), 2 * x[:, :1])
    assert torch.equal(kept(lambda a, b, c: b[:, 0] > 0, x), (x[:, :1] > 0).float())

"""Tokens of ViTs and MLP-Mixers: which of them are pooled."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastdens as fd

SIZE, PATCH, WIDTH = 16, 4, 12
N_PATCHES = (SIZE // PATCH) ** 2


class MixerBlock(nn.Module):
    """Tolstikhin et al., MLP-Mixer, 2021: one network over the tokens, one over the channels."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.tokens, self.channels = nn.Linear(N_PATCHES, N_PATCHES), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.blocks = nn.Sequential(MixerBlock(), MixerBlock())
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


def vit():
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(SIZE, PATCH, 3, 2, WIDTH, 2 * WIDTH, num_classes=5).eval()


def outputs(model, layers, x):
    """What the layers put out, [B, tokens, channels]."""
    found = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
    with torch.no_grad():
        model.eval()(x)
    return found


def images(rng):
    return torch.from_numpy(rng.normal(size=(7, 3, SIZE, SIZE))).float()


@pytest.mark.parametrize(("pool", "over"), [("avg", torch.mean), ("max", torch.amax)])
@pytest.mark.parametrize(
    ("tokens", "chosen"), [("all", slice(None)), ("class", slice(0, 1)), ("patches", slice(1, None))]
)
def test_tokens_of_a_vit(rng, pool, over, tokens, chosen):
    model, x = vit(), images(rng)
    layers = [f"encoder.layers.encoder_layer_{block}" for block in (0, 2)]
    found = fd.activations.extract(model, [x[:4], x[4:]], layers, pool, tokens=tokens, progress=False)
    for name, out in outputs(model, layers, x).items():
        assert out.shape == (7, 1 + N_PATCHES, WIDTH)
        torch.testing.assert_close(found.features[name], over(out[:, chosen], 1))


def test_tokens_of_a_mixer(rng):
    model, x = Mixer(), images(rng)
    for pool, over in (("avg", torch.mean), ("max", torch.amax)):
        found = fd.activations.extract(model, [x], ["blocks.0", "blocks.1"], pool, progress=False)
        for name, out in outputs(model, ["blocks.0", "blocks.1"], x).items():
            torch.testing.assert_close(found.features[name], over(out, 1))
    for tokens in ("class", "patches"):
        with pytest.raises(ValueError, match=f"tokens is '{tokens}', but Mixer has no class token: pass tokens='all'"):
            fd.activations.extract(model, [x], ["blocks.0"], tokens=tokens, progress=False)


def test_registers_come_before_the_patches(rng):
    """timm's networks say how many tokens are not of patches."""
    model, x = vit(), images(rng)
    model.num_prefix_tokens = 3
    found = fd.activations.extract(model, [x], ["encoder"], tokens="patches", progress=False).features["encoder"]
    torch.testing.assert_close(found, outputs(model, ["encoder"], x)["encoder"][:, 3:].mean(1))


def test_a_choice_that_makes_no_sense_is_refused(rng):
    model, x = vit(), images(rng)

    def extract(layer, pool="avg", tokens="class"):
        return fd.activations.extract(model, [x], [layer], pool, tokens=tokens, progress=False)

    with pytest.raises(ValueError, match="tokens is 'cls', but it must be one of 'all', 'class', 'patches'"):
        extract("encoder", tokens="cls")
    with pytest.raises(ValueError, match="tokens is 'class', but pool is a function, which gets all of them"):
        extract("encoder", pool=lambda out: out[:, 0])
    for layer in ("conv_proj", "heads"):
        with pytest.raises(ValueError, match=rf"layer '{layer}' gives .*, which has no such tokens: pass tokens='all'"):
            extract(layer)

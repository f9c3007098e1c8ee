"""Muon against singular value decompositions, torch's own Muon for matrices, and torch's own Adam."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from impasto.networks import TransformNet
from impasto.training.muon import ADAM_SHARE, Muon, orthogonalized

SHAPES = [(8, 8), (6, 20), (20, 6), (1, 5), (32, 288)]


def test_the_step_keeps_singular_vectors_and_brings_singular_values_near_one() -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape) for shape in SHAPES]
    for matrix, found in zip(given, orthogonalized(given), strict=True):
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        core = left.mT @ found @ right.mT  # diagonal, where the singular vectors are the same
        torch.testing.assert_close(core, torch.diag(core.diag()), rtol=0, atol=1e-3)
        assert (core.diag()[values > 0.02 * values[0]] > 0.65).all() and core.diag().max() < 1.25


def test_many_matrices_at_once_are_each_alone() -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape) for shape in SHAPES]
    for matrix, found in zip(given, orthogonalized(given), strict=True):
        torch.testing.assert_close(found, orthogonalized([matrix])[0], rtol=1e-4, atol=1e-5)


def gradients(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_move_as_matrices_under_torchs_muon(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 4, 3)).to(memory_format=layout)
    ours = Muon(network, 0.02, adam=())
    weights = [nn.Parameter(layer.weight.detach().flatten(1).clone()) for layer in network]
    theirs = torch.optim.Muon(weights, 0.02, weight_decay=0.0, adjust_lr_fn="original")
    before = [weight.detach().clone() for weight in weights]
    for seed in range(4):
        gradients(network, seed)
        for weight, layer in zip(weights, network, strict=True):
            weight.grad = layer.weight.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    for weight, layer, start in zip(weights, network, before, strict=True):
        moved, expected = layer.weight.flatten(1) - start, weight - start
        assert (moved - expected).norm() < 0.03 * expected.norm(), "torch's is in bfloat16"


def test_all_else_is_adams() -> None:
    torch.manual_seed(0)
    network, copy = TransformNet(2, 4, 1), TransformNet(2, 4, 1)
    copy.load_state_dict(network.state_dict())
    ours, theirs = Muon(network, 0.02), torch.optim.Adam(copy.parameters(), ADAM_SHARE * 0.02)
    for seed in range(3):
        gradients(network, seed)
        gradients(copy, seed)
        ours.step()
        theirs.step()
    for (name, found), expected in zip(network.named_parameters(), copy.parameters(), strict=True):
        same = torch.allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert same == (found.ndim != 4 or name == "to_rgb.weight"), name


def test_it_goes_on_from_its_state() -> None:
    torch.manual_seed(0)
    network, copy = TransformNet(1, 4, 1), TransformNet(1, 4, 1)
    copy.load_state_dict(network.state_dict())
    ours, again = Muon(network, 0.02), Muon(copy, 0.02)
    gradients(network, 0)
    ours.step()
    copy.load_state_dict(network.state_dict())
    again.load_state_dict(deepcopy(ours.state_dict()))
    for optimizer, net in ((ours, network), (again, copy)):
        gradients(net, 1)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), copy.parameters(), strict=True))

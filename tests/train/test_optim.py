import pytest
import torch
from torch import nn

from avcap.train.optim import OptimConfig, is_block_matrix, lr_factor, make_optimizers, orthogonalise


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((6, 4), (4, 6), (5, 5)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        # five steps of the quintic iteration end between about 0.7 and 1.2, by design
        assert values.min() > 0.5 and values.max() < 1.3, values


def test_lr_rises_stays_and_falls():
    factors = [lr_factor(step, num_steps=10, warmup_steps=2, decay_fraction=0.4) for step in range(10)]
    # up: 1/2, 2/2; the last 4 of 10 steps fall: (10-6)/4 = 1, 3/4, 2/4, 1/4
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_every_parameter_has_exactly_one_optimizer():
    net = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 3)]), "embed_tokens": nn.Embedding(5, 3)})
    named = dict(net.named_parameters())
    optimizers = make_optimizers(named, OptimConfig())
    trained = [id(p) for opt in optimizers for group in opt.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(map(id, named.values()))
    assert is_block_matrix("layers.0.weight", named["layers.0.weight"])
    assert not is_block_matrix("layers.0.bias", named["layers.0.bias"])


def test_muon_steps_against_the_gradient_with_unit_singular_values():
    net = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4, bias=False)])})
    weight = net["layers"][0].weight
    before = weight.detach().clone()
    (optimizer,) = make_optimizers(dict(net.named_parameters()), OptimConfig(muon_lr=0.1))
    weight.grad = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.5]))
    optimizer.step()
    moved = torch.linalg.svdvals(before - weight)
    # lr 0.1 x singular values near 1, whatever the gradient's own were (0.5 to 3)
    assert ((moved > 0.05) & (moved < 0.13)).all(), moved

"""The pretended GPU finds what a real one would refuse, and lets pass what it would not."""

import pytest
import torch
from torch import nn

from support.pretended_device import pretended_gpu


@pytest.fixture(autouse=True)
def gpu():
    with pretended_gpu():
        yield


def test_a_target_left_on_the_cpu_is_found():
    logits_BV = nn.Linear(4, 3).to("cuda")(torch.ones(2, 4, device="cuda"))
    target_B = torch.tensor([0, 1])
    with pytest.raises(RuntimeError, match="same device, but got cross_entropy"):
        nn.functional.cross_entropy(logits_BV, target_B)
    assert nn.functional.cross_entropy(logits_BV, target_B.to("cuda")).device.type == "cuda"


def test_a_batch_that_was_not_moved_is_found():
    with pytest.raises(RuntimeError, match="same device, but got linear"):
        nn.Linear(4, 3).to("cuda")(torch.ones(2, 4))


def test_a_gpu_tensor_as_an_array_is_found():
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        torch.ones(2, device="cuda").numpy()
    assert torch.ones(2, device="cuda").cpu().numpy().tolist() == torch.ones(2, device="cuda").tolist() == [1.0, 1.0]


def test_state_of_an_optimizer_left_on_the_cpu_is_found():
    param = nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = torch.optim.AdamW([param], lr=0.1)
    param.sum().backward()
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].device.type == "cuda"
    optimizer.state[param]["exp_avg"] = torch.zeros(3)
    param.sum().backward()
    with pytest.raises(RuntimeError, match="same device"):
        optimizer.step()


def test_a_mask_or_an_index_of_the_cpu_is_found_where_torch_refuses_it():
    x_4 = torch.arange(4.0, device="cuda")
    index_2 = torch.tensor([0, 2])
    assert x_4[index_2].device.type == "cuda"  # torch allows it
    for call in (lambda: x_4.index_select(0, index_2), lambda: x_4 * torch.ones(4), lambda: torch.cat([x_4, index_2])):
        with pytest.raises(RuntimeError, match="same device"):
            call()
    with pytest.raises(RuntimeError, match="same device"):
        index_2[x_4.long()]  # a GPU index into a CPU tensor
    assert (x_4 * torch.tensor(2.0)).tolist() == [0.0, 2.0, 4.0, 6.0]  # a number may come from the CPU


def test_values_and_gradients_are_real():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, 3.0]])
    layer.to("cuda")
    assert layer.weight.device.type == "cuda"
    layer(torch.tensor([[1.0, 10.0]], device="cuda")).sum().backward()
    assert layer.weight.grad.device.type == "cuda" and layer.weight.grad.tolist() == [[1.0, 10.0]]


def test_a_generator_of_the_cpu_draws_nothing_on_the_gpu():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        torch.rand(2, generator=generator, device="cuda")

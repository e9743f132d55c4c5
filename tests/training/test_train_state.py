"""AdamW: a learning rate for each parameter, and a state that can be saved and loaded."""

from __future__ import annotations

import copy

import torch
from torch import Generator, nn
from torch.optim import Optimizer

from narrows.training.train_state import TrainConfig, make_optimizers

CONFIG = TrainConfig(learning_rate=0.01, weight_decay=0.01, batch_size=8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))


def adamw(net: nn.Module) -> Optimizer:
    slow = dict.fromkeys(net[2].parameters(), 0.5)  # type: ignore[index]
    return make_optimizers({"model": list(net.parameters())}, CONFIG, slow)["model"]


def trained(optimizer: Optimizer, net: nn.Sequential, steps: int) -> None:
    rng = Generator().manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn((8, 6), generator=rng)
        loss = (net(x) - x).square().mean()
        loss.backward()
        if step % 3 == 1:
            net[0].bias.grad = None  # a player that sits out
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["lr_multiplier"] / (1 + step)
        optimizer.step()


def test_a_state_that_was_loaded_continues_to_the_same_bits() -> None:
    net = network()
    whole = adamw(net)
    trained(whole, net, 5)
    copied = copy.deepcopy(net)
    again = adamw(copied)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    trained(whole, net, 5)
    trained(again, copied, 5)
    for a, b in zip(net.parameters(), copied.parameters(), strict=True):
        assert torch.equal(a, b)


def test_steps_are_those_of_torch_s_fused_adamw() -> None:
    net, other = network(), network()
    ours, groups = adamw(net), adamw(other).param_groups
    theirs = torch.optim.AdamW([{**group} for group in groups], fused=True)
    trained(ours, net, 5)
    trained(theirs, other, 5)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert ours.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]


def test_a_parameter_group_for_each_multiplier() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
    made = make_optimizers(
        {"model": list(net.parameters())}, CONFIG, {p: float(p.ndim) for p in net.parameters()}
    )
    groups = made["model"].param_groups
    assert [group["lr_multiplier"] for group in groups] == [2.0, 1.0]

"""The lean AdamW is torch's to the bit."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Generator, nn

from narrows.training.loop import TrainConfig
from narrows.training.optimizer import LeanAdamW, make_optimizers


def trained(optimizer: torch.optim.Optimizer, net: nn.Module, steps: int) -> None:
    rng = Generator().manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        x = torch.randn((8, 6), generator=rng)
        loss = (net(x) - x).square().mean()
        loss.backward()
        if step % 3 == 1:
            net[0].bias.grad = None  # a player that sits out
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["pace"] / (1 + step)
        optimizer.step()


def groups(net: nn.Module) -> list[dict[str, Any]]:
    first, last = net[0].parameters(), net[2].parameters()
    return [{"params": list(first), "pace": 1.0}, {"params": list(last), "pace": 0.5}]


def test_steps_are_torchs_to_the_bit() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))
    other = copy.deepcopy(net)
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.01}
    ours, theirs = (
        LeanAdamW(groups(net), **options),
        torch.optim.AdamW(groups(other), fused=True, **options),
    )
    trained(ours, net, 12)
    trained(theirs, other, 12)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert str(ours.state_dict()) == str(theirs.state_dict())


def test_a_state_that_was_loaded_goes_on() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))
    options: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.01}
    whole = LeanAdamW(groups(net), **options)
    trained(whole, net, 5)
    copied = copy.deepcopy(net)
    again = LeanAdamW(groups(copied), **options)
    again.load_state_dict(copy.deepcopy(whole.state_dict()))
    trained(whole, net, 5)
    trained(again, copied, 5)
    for a, b in zip(net.parameters(), copied.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_group_for_each_pace() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
    recipe = TrainConfig(learning_rate=0.01, weight_decay=0.0, batch_size=8)
    made = make_optimizers({"model": list(net.parameters())}, recipe, lambda p: float(p.ndim))
    assert [group["pace"] for group in made["model"].param_groups] == [2.0, 1.0]

"""Two players share the loop unchanged, and neither sees the other's gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.plain_backward import plain_backward
from helpers.unfitted_models import CHOICES as SMALL
from narrows._types import Clock, Trace
from narrows.estimators.build import Parts, build_model
from narrows.exceptions import ParameterError
from narrows.parts.latents.gaussian import Point
from narrows.parts.model import Model
from narrows.parts.objective import Term, WeightedObjective
from narrows.parts.regularizers.base import Regularizer
from narrows.training import loop
from narrows.training.batches import Rows, fit_scaling
from narrows.training.process_group import Group
from narrows.training.statistics import statistics
from narrows.training.train_state import Budget, TrainConfig, TrainState


class Adversary(Regularizer):
    """A critic tells codes from draws of N(0, I); f learns to mislead it (Makhzani et al. 2015)."""

    has_critic = True

    def __init__(self) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, model: Any, trace: Trace) -> Tensor:
        return F.softplus(-self.critic(trace.z[0])).mean()

    def own_loss(self, model: Any, trace: Trace) -> Tensor:
        # not detached, on purpose: the isolation must not rest on the author of a critic
        z = trace.z[0]
        real = torch.randn(z.shape, generator=torch.Generator().manual_seed(trace.clock.step))
        return (F.softplus(-self.critic(real)) + F.softplus(self.critic(z))).mean()


CHOICES = replace(SMALL, latent_dim=2)


def build() -> tuple[Model, WeightedObjective, Rows]:
    rng = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = WeightedObjective([Term("adversary", Adversary(), 0.5)])
    data = torch.randn(64, 5, generator=rng)
    rows = Rows(data, fit_scaling(statistics([data]), "column"))
    return build_model(Parts(q=Point()), CHOICES, None, rng), objective, rows


def _losses(model: Any, objective: WeightedObjective, x: Tensor) -> dict[str, Tensor]:
    return objective(model, model(x, Clock(), torch.Generator().manual_seed(1)))


def leak(step: Any) -> float:
    """The largest difference between what a step applies and each loss's own gradient."""
    model, objective, rows = build()
    x, players = rows.scaled(slice(None)), objective.players(model)
    wanted = {
        name: torch.autograd.grad(loss, players[name], retain_graph=True)
        for name, loss in _losses(model, objective, x).items()
    }
    # a step size of zero: the gradients stay to be looked at, and nothing moves
    optimizers = {n: torch.optim.SGD(p, lr=0.0) for n, p in players.items()}
    step(_losses(model, objective, x), players, optimizers)
    return max(
        float((p.grad - g).abs().max())
        for name, gradients in wanted.items()
        for p, g in zip(players[name], gradients, strict=True)
    )


def test_each_player_gets_the_gradient_of_its_own_loss_alone() -> None:
    assert leak(loop.step_players) < 1e-7
    assert leak(plain_backward) > 1e-3  # the test can see a leak


def test_no_parameter_has_two_owners() -> None:
    model, objective, _ = build()
    players = objective.players(model)
    owned = [id(p) for parameters in players.values() for p in parameters]
    assert set(players) == {"model", "adversary"}
    assert len(owned) == len(set(owned))
    assert len(owned) == len([*model.parameters(), *objective.parameters()])


def test_the_loop_trains_two_players_as_it_is() -> None:
    model, objective, rows = build()
    before = [p.clone() for p in objective.parameters()]
    state = TrainState(torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    recipe = TrainConfig(learning_rate=1e-2, weight_decay=0.0, batch_size=16)
    records = list(loop.train(model, objective, rows, recipe, Budget(20), state, Group()))
    first, last = records[0], records[-1]
    assert float(last.terms["distance"].detach()) < 0.7 * float(first.terms["distance"].detach())
    assert set(last.losses) == {"model", "adversary"}
    assert all(not torch.equal(a, b) for a, b in zip(before, objective.parameters(), strict=True))


def test_two_terms_of_one_name_are_refused() -> None:
    with pytest.raises(ParameterError, match="different names"):
        WeightedObjective([Term("a", Adversary()), Term("a", Adversary())])


def _worker(rank: int, port: int, gradients: Any) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, objective, rows = build()
    players = objective.players(model)
    model.critic = objective.terms[0].regularizer.critic  # so that DDP averages its gradient too
    ddp = DistributedDataParallel(model)
    x = rows.scaled(slice(rank * 32, rank * 32 + 32))
    losses = objective(model, ddp(x, Clock(), torch.Generator().manual_seed(1)))
    optimizers = {n: torch.optim.SGD(p, lr=0.0) for n, p in players.items()}
    loop.step_players(losses, players, optimizers)
    gradients[rank] = {n: [p.grad.numpy().copy() for p in ps] for n, ps in players.items()}
    dist.destroy_process_group()


def test_two_processes_average_each_players_gradient() -> None:
    """Half the batch in each of two processes: the gradients are those of the whole batch."""
    import socket

    import torch.multiprocessing as mp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with mp.Manager() as manager:
        gradients = manager.dict()
        mp.spawn(_worker, args=(port, gradients), nprocs=2)
        found = dict(gradients)
    model, objective, rows = build()
    players = objective.players(model)
    halves = [_losses(model, objective, rows.scaled(slice(i, i + 32))) for i in (0, 32)]
    for name, parameters in players.items():
        loss = (halves[0][name] + halves[1][name]) / 2
        wanted = torch.autograd.grad(loss, parameters, retain_graph=True)
        for rank in (0, 1):
            for have, want in zip(found[rank][name], wanted, strict=True):
                torch.testing.assert_close(torch.from_numpy(have), want, rtol=1e-4, atol=1e-6)

"""Several processes learn what one process learns, and end together when one of them ends."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import narrows
from helpers.small_data import chirps, curve
from helpers.started_processes import training
from narrows.exceptions import InputError, ParameterError, WorkerError
from narrows.training.launcher import run_workers
from narrows.training.loop import step_players
from narrows.training.process_group import Group, current_group

X = curve(301)  # odd: the shares of a batch differ by a row
IMAGES = curve(60, 35).reshape(60, 5, 7)
KWARGS: dict[str, Any] = {"latent_dim": 2, "max_epochs": 3, "random_state": 0}
# without the start at PCA, where gradients are rounding that AdamW makes full steps of
PLAIN = narrows.Autoencoder(precision="float32", linear_path=False, **KWARGS)
FITS = {
    "dense": (PLAIN, X),
    "conv": (narrows.Autoencoder(architecture="conv", **KWARGS), IMAGES),
    "second start": (narrows.Autoencoder(**{**KWARGS, "max_epochs": 12}), chirps(301, 40)),
    "cooldown": (
        narrows.Autoencoder(
            **{**KWARGS, "max_epochs": 60}, batch_size=32, learning_rate=0.05, n_iter_no_change=2
        ),
        X,
    ),
    "vae": (narrows.VariationalAutoencoder(**KWARGS), X),
    "conv vae": (narrows.VariationalAutoencoder(architecture="conv", **KWARGS), IMAGES),
}


class Halves(nn.Module):
    """Two players, an unused layer and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net, self.critic, self.unused, self.frozen = (nn.Linear(6, 6) for _ in range(4))
        self.frozen.requires_grad_(False)

    def losses(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        z = self.net(x) * self.frozen(x)
        return {"model": z.square().mean(), "critic": (self.critic(z) - x).square().mean()}

    def players(self) -> dict[str, list[nn.Parameter]]:
        own = [*self.net.parameters(), *self.unused.parameters()]
        return {"model": own, "critic": list(self.critic.parameters())}


def gradients(share: tuple[int, int], absent: str = "") -> tuple[dict[str, Any], dict[str, float]]:
    """The gradients of each player in one step on 7 rows, and the recorded numbers."""
    x = torch.from_numpy(X[:7]).float().tensor_split(share[1])[share[0]]
    net = Halves()
    players, losses = net.players(), net.losses(x)
    losses.pop(absent, None)
    terms = {"size": x.square().mean()}
    optimizers = {name: torch.optim.SGD(owned, lr=0.0) for name, owned in players.items()}
    step_players(
        losses,
        players,
        optimizers,
        after_backward=lambda: current_group().average(players, losses, terms, len(x)),
    )
    found = {
        name: [None if p.grad is None else p.grad.numpy() for p in players[name]] for name in losses
    }
    return found, {name: float(v.detach()) for name, v in (losses | terms).items()}


def digest(estimator: Any) -> str:
    sha = hashlib.sha256()
    for tensor in estimator.model_.state_dict().values():
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


def all_checks() -> dict[str, Any]:
    """All that is checked in two processes, in one task: starting them takes longest."""
    group = current_group()
    found: dict[str, Any] = {"ranks": group.all_gather(group.share)}
    for name, (estimator, data) in FITS.items():
        estimator.fit(data)
        found[name] = estimator.loss_curve_, estimator.validation_curve_
        found[f"{name} bits"] = group.all_gather(digest(estimator))
    found["steps"] = [gradients(group.share, absent) for absent in ("", "critic")]
    found["stop"] = group.all_gather(group.all_reduce_stop(10.0 + group.rank, group.rank == 1))
    found["reason"] = group.all_gather(group.all_reduce_reason("enough" if group.rank else ""))
    found["sum"] = group.all_gather(group.all_reduce_sum(0.5 + group.rank))
    found["first"] = group.all_gather(group.broadcast(f"from {group.rank}"))
    many = curve(20_000)
    PLAIN.fit(X)
    found["asked"] = PLAIN.transform(many), PLAIN.reconstruct(many), PLAIN.score_samples(many)
    found["alone"] = PLAIN.__getstate__()
    many[18_000] = 1e30
    found["far"] = group.all_gather(message_of(lambda: PLAIN.transform(many)))
    found["few"] = message_of(lambda: PLAIN.set_params(batch_size=1).fit(X))
    found["other data"] = group.all_gather(message_of(lambda: PLAIN.fit(X + group.rank)))
    return found


def message_of(action: Any) -> str:
    try:
        action()
    except narrows.NarrowsError as error:
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="module")
def two() -> dict[str, Any]:
    found: dict[str, Any] = run_workers(2, all_checks)
    return found


def test_each_process_knows_its_rank(two: dict[str, Any]) -> None:
    assert two["ranks"] == [(0, 2), (1, 2)]
    assert current_group() == Group(0, 1)


def test_two_processes_follow_the_curve_of_one(two: dict[str, Any]) -> None:
    alone = PLAIN.set_params(batch_size="auto").fit(X)
    for found, wanted in zip(
        two["dense"], (alone.loss_curve_, alone.validation_curve_), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_a_variational_model_learns_as_well_as_in_one_process(two: dict[str, Any]) -> None:
    """The noise differs, so that losses are only close."""
    estimator, data = FITS["vae"]
    wanted = estimator.fit(data).loss_curve_
    np.testing.assert_allclose(two["vae"][0], wanted, rtol=0.1)


@pytest.mark.parametrize("name", FITS)
def test_all_processes_end_with_the_same_bits(name: str, two: dict[str, Any]) -> None:
    first, second = two[f"{name} bits"]
    assert first == second
    assert (len(two[name][0]) < FITS[name][0].max_epochs) == (name == "cooldown")


@pytest.mark.parametrize("i", [0, 1], ids=["all players", "one sits out"])
def test_shares_of_unequal_size_give_the_step_of_the_whole_batch(
    i: int, two: dict[str, Any]
) -> None:
    found, numbers = two["steps"][i]
    wanted, all_numbers = gradients((0, 1), "critic" if i else "")
    assert numbers == pytest.approx(all_numbers, rel=1e-5)
    assert found.keys() == wanted.keys()
    for name in wanted:
        for have, want in zip(found[name], wanted[name], strict=True):
            assert (have is None) == (want is None)  # the unused layer has no gradient
            if want is not None:
                np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-6)


def test_time_and_stop_are_the_same_in_all_processes(two: dict[str, Any]) -> None:
    assert two["stop"] == [(10.0, True), (10.0, True)]
    assert two["reason"] == ["enough", "enough"]
    assert Group().all_reduce_stop(3.0, False) == (3.0, False)
    assert Group().all_reduce_reason("") == ""


def test_numbers_are_summed_and_rank_zeros_object_is_given_to_all(two: dict[str, Any]) -> None:
    assert two["sum"] == [2.0, 2.0]
    assert two["first"] == ["from 0", "from 0"]
    assert Group().broadcast("alone") == "alone"


def test_answers_of_a_group_are_those_of_one_process_in_order(two: dict[str, Any]) -> None:
    alone, many = narrows.Autoencoder(), curve(20_000)
    vars(alone).update(two["alone"])
    wanted = alone.transform(many), alone.reconstruct(many), alone.score_samples(many)
    for have, want in zip(two["asked"], wanted, strict=True):
        np.testing.assert_array_equal(have, want)


def test_bad_input_is_reported_by_all_with_its_row_in_the_whole_data(two: dict[str, Any]) -> None:
    other, own = two["far"]
    assert own.startswith("InputError: Row 18000 ")
    assert other.startswith("WorkerError: Process 1 cannot go on: Row 18000 ")
    assert two["few"].startswith("ParameterError: Batches of 1 rows")
    assert all("given different data" in sentence for sentence in two["other data"])


# ------------------------------------------------------------------ n_devices


def test_n_devices_fits_in_workers_and_returns_what_they_learned() -> None:
    state = np.random.RandomState(0)
    est = narrows.VariationalAutoencoder(**{**KWARGS, "random_state": state}, n_devices=2)
    with pytest.warns(UserWarning, match="seen here"):
        assert est.set_params(f=Noticed(), g=nn.Linear(2, 6)).fit(X) is est
    assert est.random_state is state
    assert est.transform(X).shape == (301, 2)
    assert np.isfinite(est.score(X))
    assert est.n_iter_ == 3
    with pytest.raises(ParameterError, match="partial_fit trains in the process that calls it"):
        est.partial_fit(X)


class Noticed(nn.Module):
    """A user's own encoder that warns."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            warnings.warn("seen here", stacklevel=1)
        return self.net(x)  # type: ignore[no-any-return]


SCRIPT = """
import numpy as np
from narrows import Autoencoder

class Own(Autoencoder):
    pass

X = np.random.default_rng(0).normal(size=(64, 5))
est = Own(latent_dim=2, max_epochs=2, random_state=0, n_devices=2).fit(X)
print(type(est).__name__, est.transform(X).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("script", marks=pytest.mark.slow), "standard input"])
def test_scripts_need_no_guard(way: str, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    name, given = (str(path), None) if way == "script" else ("-", SCRIPT)
    done = subprocess.run([sys.executable, name], input=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Own (64, 2)\n", "")


def test_one_cuda_device_is_not_shared() -> None:
    n = torch.cuda.device_count() + 2
    with pytest.raises(ParameterError, match="CUDA devices, but there are"):
        narrows.Autoencoder(n_devices=n, device="cuda").fit(X)
    with pytest.raises(ParameterError, match="is one device, but n_devices is 2"):
        narrows.Autoencoder(n_devices=2, device="cuda:0").fit(X)


# ------------------------------------------------------------------ ends


def die(folder: Path) -> None:
    """Rank 1 is killed while rank 0 waits for it."""
    rank = current_group().rank
    (folder / str(rank)).write_text(str(os.getpid()))
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    current_group().all_gather(rank)


def test_a_killed_worker_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerError, match="Worker process 1 of 2 was ended by signal 9"):
        run_workers(2, die, tmp_path)
    assert (
        time.monotonic() - started < 300
    )  # most of which is starting two interpreters on a busy machine
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)


LONG = """
import numpy as np, pathlib, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where tests run behind a shell
from narrows import Autoencoder

def ready(entry):
    pathlib.Path("ready").touch()

X = np.random.default_rng(0).normal(size=(64, 5))
more = dict(max_epochs=10**6, early_stopping=False, listeners=ready, n_devices=2)
est = Autoencoder(latent_dim=2, random_state=0, **more).fit(X)
print(est.stop_reason_, np.isfinite(est.score(X)))
"""


def test_ctrl_c_keeps_the_best_model(tmp_path: Path) -> None:
    with training([sys.executable, "-c", LONG], tmp_path) as long:
        os.killpg(long.pid, signal.SIGINT)  # as a terminal does
        out, err = long.communicate(timeout=300)
    assert out == "interrupted True\n"
    assert "Training was interrupted; the best model so far is kept." in err
    assert "Traceback" not in err


def refuse(rows: Any) -> None:
    if current_group().rank == 1:
        rows[0] = 1.0  # a worker's own copy
        raise InputError("this row cannot be used.")
    current_group().all_gather(None)


def test_an_error_in_a_worker_is_raised_as_itself() -> None:
    rows = np.zeros(1000)
    with pytest.raises(InputError, match="this row cannot be used"):
        run_workers(2, refuse, rows)
    assert not rows.any()


# ------------------------------------------------------------------ torchrun


def torchrun(*words: str) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return [*start, *words]


@pytest.mark.slow
def test_torchrun_writes_one_file_and_prints_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    model = tmp_path / "m.safetensors"
    words = ["fit", str(tmp_path / "x.npy"), "-o", str(model), "--max-epochs", "2", "--seed", "0"]
    command = torchrun("--standalone", "-m", "narrows", *words)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote") == 1
    est = narrows.load(model)
    assert est.transform(X).shape == (301, est.latent_dim_)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.safetensors", "x.npy"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode != 0
    assert again.stderr.count("exists already") == 1


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them; nothing else connects them."""
    hosts = [f"narrows{os.getpid()}{side}" for side in "ab"]
    try:
        for host in hosts:
            ip(f"netns add {host}")
        ip(f"link add eth0 netns {hosts[0]} type veth peer name eth0 netns {hosts[1]}")
        for i, host in enumerate(hosts, start=1):
            ip(f"-n {host} addr add 10.77.0.{i}/24 dev eth0")
            ip(f"-n {host} link set eth0 up")
            ip(f"-n {host} link set lo up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host], capture_output=True)


def _may_have_hosts() -> bool:
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"narrows{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made


@pytest.mark.slow
@pytest.mark.skipif(not _may_have_hosts(), reason="needs root and ip netns")
def test_two_machines_train_one_model_over_a_network(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    model = tmp_path / "m.safetensors"
    words = ["fit", str(tmp_path / "x.npy"), "-o", str(model), "--max-epochs", "2", "--seed", "0"]
    with two_hosts() as hosts:
        running = []
        for i, host in enumerate(hosts):
            meet = ["--nnodes", "2", "--node-rank", str(i), "--master-addr", "10.77.0.1"]
            command = torchrun(*meet, "--master-port", "29500", "-m", "narrows", *words)
            running.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", host, *command],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**os.environ, "GLOO_SOCKET_IFNAME": "eth0"},
                )
            )
        try:
            outputs = [process.communicate(timeout=240) for process in running]
        finally:
            for process in running:
                process.kill()
                process.wait()
    assert [process.returncode for process in running] == [0, 0], outputs
    assert ["wrote" in out for out, _ in outputs] == [True, False]
    assert narrows.load(model).transform(X).shape[0] == 301

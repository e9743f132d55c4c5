"""The same seed gives the same bits, and global random states do not change."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import narrows
from helpers.small_data import TABLES, curve
from narrows.estimators.registry import MODELS, model_class

X = curve(120)
KWARGS = {"latent_dim": 2, "max_epochs": 3, "random_state": 0}


def _bits(est: Any) -> list[bytes]:
    return [t.numpy().tobytes() for t in est.model_.state_dict().values()]


@pytest.mark.parametrize("name", MODELS)  # of dense networks test_family says the same
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    images, cls = curve(60, 42).reshape(60, 6, 7), model_class(name)
    few: dict[str, Any] = {**KWARGS, "architecture": "conv", "max_epochs": 2}
    fits = [cls(**few).fit(images) for _ in range(2)]
    other = cls(**{**few, "random_state": 1}).fit(images)
    assert _bits(fits[0]) == _bits(fits[1])
    assert _bits(fits[0]) != _bits(other)


@pytest.mark.parametrize("name", TABLES)
def test_global_random_states_are_untouched(name: str) -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index]
    est = model_class(name)(latent_dim=2, max_epochs=2, random_state=None).fit(X)
    for method, args in (("transform", (X,)), ("corrupt", (X,)), ("sample", (3,))):
        if hasattr(est, method):
            getattr(est, method)(*args)
    assert np.array_equal(before[0], np.random.get_state()[1])  # type: ignore[index]
    assert torch.equal(before[1], torch.get_rng_state())


def test_two_threads_fitting_at_once_give_the_same_bits_as_one() -> None:
    alone = _bits(narrows.VariationalAutoencoder(**KWARGS).fit(X))
    found: dict[int, list[bytes]] = {}

    def work(i: int) -> None:
        torch.set_num_threads(1)
        found[i] = _bits(narrows.VariationalAutoencoder(**KWARGS).fit(X))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == alone
    assert found[1] == alone


SCRIPT = """
import sys, numpy as np, torch, narrows
torch.set_num_threads(1)
est = narrows.load(sys.argv[1])
X = np.load(sys.argv[2])
np.savez(sys.argv[3], Z=est.transform(X), X2=est.reconstruct(X), s=est.score_samples(X))
"""


# one for each way of keeping state; a process takes seconds
KINDS = [
    "Autoencoder",
    "VQVAE",
    *(pytest.param(name, marks=pytest.mark.slow)
      for name in ("VariationalAutoencoder", "LadderVAE", "RiemannianHamiltonianVAE")),
]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_saved_model_answers_bit_for_bit_in_a_new_process(name: str, tmp_path: Path) -> None:
    est = model_class(name)(**KWARGS).fit(X)
    paths = [str(tmp_path / n) for n in ("m.safetensors", "x.npy", "out.npz")]
    est.save(paths[0])
    np.save(paths[1], X)
    subprocess.run([sys.executable, "-c", SCRIPT, *paths], check=True)
    with np.load(paths[2]) as out:
        np.testing.assert_array_equal(out["Z"], est.transform(X))
        np.testing.assert_array_equal(out["X2"], est.reconstruct(X))
        np.testing.assert_array_equal(out["s"], est.score_samples(X))


def test_batches_do_not_change_what_a_row_gets() -> None:
    est = narrows.Autoencoder(**KWARGS).fit(X)
    one_by_one = np.concatenate([est.transform(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(one_by_one, est.transform(X), rtol=1e-4, atol=1e-5)

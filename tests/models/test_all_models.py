"""What every model of the family must do, in Python and from the command line."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import narrows
from narrows import ParameterError
from narrows import models as family
from narrows.cli import main
from narrows.estimators.parameters import Parameters
from narrows.estimators.registry import ANY_SIZE, KNOWN, MODELS, model_class, notebook_html

DIGITS = load_digits()
X, Y = DIGITS.images[:120], DIGITS.target[:120]
SMALL = {"latent_dim": 4, "hidden_layer_sizes": (16, 12), "max_epochs": 2, "random_state": 0}


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    """Every model, fitted once."""
    made = {}
    for name in MODELS:
        model = model_class(name)(**SMALL)
        made[name] = model.fit(X, Y) if "Conditional" in name else model.fit(X)
    return made


@pytest.mark.parametrize("name", MODELS)
def test_codes_do_not_depend_on_chance_or_on_other_rows(name: str, fitted: Any) -> None:
    model = fitted[name]
    Z = model.transform(X)
    assert Z.shape == (120, model.latent_dim_)
    assert np.isfinite(Z).all()
    np.testing.assert_array_equal(model.transform(X), Z)
    np.testing.assert_allclose(model.transform(X[7:9]), Z[7:9], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_notebook_shows_it(name: str, fitted: Any) -> None:
    shown = notebook_html(fitted[name], "parameters")
    assert "data:image/png" in shown
    assert "12 rows held out for validation" in shown


@pytest.mark.parametrize("name", MODELS)
def test_reconstruct_is_the_decoded_code(name: str, fitted: Any) -> None:
    model = fitted[name]
    back = model.inverse_transform(model.transform(X))
    assert back.shape == X.shape
    np.testing.assert_allclose(model.reconstruct(X), back, atol=1e-4)
    # where it starts at PCA, two epochs of seven steps leave it a model of the digits
    assert model.score(X) > (0.1 if model.choices_.linear_path else -10)


@pytest.mark.parametrize("name", MODELS)
def test_what_generates_draws_rows_of_the_users_shape(name: str, fitted: Any) -> None:
    model = fitted[name]
    if not hasattr(model, "sample"):
        assert not hasattr(model, "log_likelihood")
        return
    drawn = model.sample(7, random_state=0)
    assert drawn.shape == (7, 8, 8)
    assert np.isfinite(drawn).all()
    assert drawn.std(0).max() > 0
    np.testing.assert_array_equal(model.sample(7, random_state=0), drawn)


@pytest.mark.parametrize("name", MODELS)
def test_likelihoods_are_those_of_rows_and_rise_with_draws(name: str, fitted: Any) -> None:
    model = fitted[name]
    if not hasattr(model, "log_likelihood"):
        return
    few, many = (model.log_likelihood(X[:40], n_samples=n, random_state=0) for n in (1, 50))
    assert few.shape == many.shape == (40,)
    assert np.isfinite(many).all()
    assert many.mean() > few.mean()


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_same_model_again(name: str, fitted: Any, tmp_path: Path) -> None:
    model = fitted[name]
    again = narrows.load(model.save(tmp_path / "model.safetensors"))
    assert type(again) is type(model)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))
    if hasattr(model, "sample"):
        np.testing.assert_array_equal(
            again.sample(5, random_state=1), model.sample(5, random_state=1)
        )


@pytest.mark.parametrize("name", MODELS)
def test_walks_end_at_the_two_reconstructions(name: str, fitted: Any) -> None:
    model = fitted[name]
    walks = model.interpolate(X[:3], X[3:6], steps=4)
    assert walks.shape == (3, 4, 8, 8)
    np.testing.assert_allclose(walks[:, 0], model.reconstruct(X[:3]), atol=1e-3)
    np.testing.assert_allclose(walks[:, -1], model.reconstruct(X[3:6]), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_one_seed_gives_the_same_bits(name: str, fitted: Any) -> None:
    again = model_class(name)(**SMALL)
    again = again.fit(X, Y) if "Conditional" in name else again.fit(X)
    np.testing.assert_array_equal(again.transform(X), fitted[name].transform(X))
    assert again.history_[-1]["loss"] == fitted[name].history_[-1]["loss"]


# What no graph of fixed operations can hold, and why.
GRADIENTS = "its code follows gradients of log p(x, z)"
NOT_EXPORTED = {
    "MaskedAutoencoder": "which patches are visible changes with the row",
    "HamiltonianVAE": GRADIENTS,
    "RiemannianHamiltonianVAE": GRADIENTS,
}


@pytest.mark.parametrize("name", MODELS)
def test_encoder_and_decoder_can_be_exported(name: str, fitted: Any) -> None:
    """torch.export is what ONNX's exporter begins with; the graph gives the same numbers."""
    model = fitted[name]
    Z = model.transform(X[:3])
    for net, given in ((model.encoder_, X[:3]), (model.decoder_, Z)):
        if name in NOT_EXPORTED and given is not Z:
            continue
        given = torch.from_numpy(given)
        graph = torch.export.export(net, (given,)).module()
        torch.testing.assert_close(graph(given), net(given))


@pytest.mark.parametrize("name", MODELS)
def test_encoder_and_decoder_are_transform_and_its_inverse(name: str, fitted: Any) -> None:
    """In the user's own PyTorch: units, shape and class are those of X, as in the methods."""
    model = fitted[name]
    Z = model.transform(X[:9])
    codes = model.encoder_(torch.from_numpy(X[:9])).detach()
    np.testing.assert_allclose(codes, Z, atol=1e-5, rtol=1e-5)
    rows = model.decoder_(torch.from_numpy(Z)).detach()
    np.testing.assert_allclose(rows, model.inverse_transform(Z), atol=1e-4)
    n = sum(p.numel() for p in model.decoder_.parameters())
    assert n < sum(p.numel() for p in model.model_.parameters())  # no encoder in it


@pytest.mark.parametrize("name", MODELS)
def test_the_command_fits_and_samples(name: str, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "m.safetensors"
    short = ["--latent-dim", "4", "--hidden-layer-sizes", "16", "--max-epochs", "1", "--seed", "0"]
    rows = tmp_path / "rows.npy"
    np.save(rows, X.astype(np.uint8))
    with pytest.raises(SystemExit) as end:
        main(["fit", str(rows), "--model", name, *short, "-q", "-o", str(out)])
    assert end.value.code == 0, capsys.readouterr().err
    drawn = tmp_path / "drawn.npy"
    with pytest.raises(SystemExit) as end:
        main(["sample", str(out), "-n", "5", "--seed", "0", "-o", str(drawn)])
    if hasattr(model_class(name)(), "sample"):
        assert end.value.code == 0, capsys.readouterr().err
        assert np.load(drawn).shape == (5, 8, 8)
    else:
        assert end.value.code == 1
        assert "--sampler" in capsys.readouterr().err


def test_the_list_has_them_all(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["models"])
    said = capsys.readouterr().out
    assert all(name in said for name in KNOWN)


@pytest.mark.parametrize("name", MODELS)
def test_a_named_model_only_picks_parts(name: str) -> None:
    """One to five fields of its own, and no training code."""
    cls = model_class(name)
    shared = {item.name for item in fields(Parameters)}
    own = [item.name for item in fields(cls) if item.name not in shared]
    assert len(own) <= 5, own
    for item in fields(cls):
        assert item.metadata.get("help"), item.name
    assert cls._parts is not narrows.estimators.base.Estimator._parts
    doc = inspect.getdoc(cls) or ""
    assert "Source:" in doc and ">>>" in doc


FORBIDDEN = {"backward", "step", "zero_grad", "train", "AdamW"}


def test_no_model_file_has_training_code() -> None:
    for path in Path(inspect.getfile(family)).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        called = {
            node.attr if isinstance(node, ast.Attribute) else node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute | ast.Name)
        }
        assert not called & FORBIDDEN, path.name


def test_a_model_without_a_prior_says_what_to_choose() -> None:
    model = narrows.Autoencoder(**SMALL).fit(X)
    assert not hasattr(model, "sample")
    with pytest.raises(ParameterError, match="sampler"):
        narrows.Autoencoder(sampler="prior", **SMALL).fit(X)


def test_the_catalogue_is_the_public_names() -> None:
    assert set(KNOWN) <= set(narrows.__all__)
    assert not set(MODELS) & set(ANY_SIZE)


def test_the_page_of_models_is_what_the_code_says() -> None:
    import importlib.util

    path = Path(__file__).parents[2] / "docs" / "make_models.py"
    spec = importlib.util.spec_from_file_location("make_models", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run docs/make_models.py"

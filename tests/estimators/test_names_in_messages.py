"""Names in messages: a misspelt one is answered with the one meant, an inner one is never shown."""

from __future__ import annotations

from typing import Any

import pytest

import narrows
from helpers.small_data import curve
from narrows import Autoencoder, DenoisingAutoencoder, ParameterError
from narrows import VariationalAutoencoder as VAE
from narrows.estimators.registry import find_model

X = curve(60)


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: Autoencoder(latent_dims=3), "latent_dim"),
        (lambda: VAE().set_params(max_epoch=3), "max_epochs"),
        (lambda: DenoisingAutoencoder(noiselevel=1.0), "noise_level"),
        (lambda: narrows.Denoiser(noisy_target=True), "noisy_targets"),
        (lambda: Autoencoder(batch=8), "batch_size"),
        (lambda: narrows.Codec().set_params(Latent_Dim=8), "latent_dim"),
        (lambda: Autoencoder(distance="gausian").check_parameters(), "gaussian"),
        (lambda: Autoencoder(regularizers="kll=2").fit(X), "kl"),
        (lambda: find_model("autoencodr"), "Autoencoder"),
        (lambda: find_model("varational-autoencoder"), "VariationalAutoencoder"),
        (lambda: narrows.Autoencodr, "Autoencoder"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_meant(call: Any, meant: str) -> None:
    with pytest.raises((ParameterError, AttributeError), match=f"Did you mean '{meant}'?") as found:
        call()
    assert len(str(found.value)) < 400


def test_a_name_that_is_not_close_to_any_gets_no_suggestion() -> None:
    for call in (
        lambda: find_model("perceptron-of-no-kind"),
        lambda: Autoencoder(reconstruction="mse"),
        lambda: VAE(optimiser_state=1),
        lambda: narrows.Denoiser(colour_depth=8),
    ):
        with pytest.raises(ParameterError) as found:
            call()
        assert "Did you mean" not in str(found.value)


def test_errors_of_python_name_no_inner_class() -> None:
    """A call with wrong arguments, and what is printed, show public names only."""
    fitted = VAE(latent_dim=2, max_epochs=0, random_state=0).fit(X)
    calls = ("transform", "inverse_transform", "interpolate", "fit", "save", "log_likelihood")
    for owner, names in ((VAE(), calls), (fitted, calls), (fitted.pca_, calls[:3])):
        for name in names:
            with pytest.raises(TypeError, match=rf"^{name}\(\) missing"):
                getattr(owner, name)()
    with pytest.raises(TypeError, match=r"^sample\(\) got"):
        fitted.sample(temprature=2.0)
    assert " at 0x" not in repr(fitted.pca_)
    assert "PCA with 2 components" in repr(fitted.pca_)

"""Models with a Gaussian code and a prior over it, from which they generate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from narrows.core import ParameterError
from narrows.engine.data import inference_batch
from narrows.estimators.base import Estimator
from narrows.estimators.building import Parts
from narrows.estimators.choices import look_at_range, refuse_not_binary
from narrows.estimators.dividing import measured
from narrows.estimators.door import Array
from narrows.estimators.parameters import parameter
from narrows.estimators.preparing import seed_of
from narrows.parts.latents import DiagonalGaussian
from narrows.parts.objective import Term
from narrows.parts.priors import StandardNormal
from narrows.parts.regularizers import KL


@dataclass(kw_only=True, eq=False, repr=False)
class VariationalAutoencoder(Estimator):
    """min over f, g of E_x E_q [−log p(x | z)] + β KL(q(z | x) ‖ N(0, I)): minus the ELBO.

    The code is Gaussian, q = N(μ(x), diag σ²(x)); new x are decoded draws from the prior. On real
    numbers p(x | z) is a Gaussian with one learned scale, on zeros and ones a Bernoulli.

    Source: Kingma & Welling, "Auto-encoding variational Bayes", arXiv:1312.6114; the learned scale:
    Rybkin et al., arXiv:2006.13202; β: Higgins et al., ICLR 2017.

    Parameters
    ----------
    beta : float
        The weight β of the KL divergence; 1 is the evidence bound.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import VariationalAutoencoder
    >>> X = load_digits().images[:200]
    >>> vae = VariationalAutoencoder(latent_dim=4, max_epochs=3, random_state=0).fit(X)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    beta: float = parameter(1.0, "Weight of the KL divergence.", kind=float, low=0)

    def _parts(self) -> Parts:
        return Parts(
            q=DiagonalGaussian(),
            distance="gaussian",
            p=StandardNormal(),
            terms=(Term("kl", KL(), float(self.beta)),),
        )

    @torch.no_grad()
    def sample(self, n: int = 1, *, random_state: Any = None, temperature: float = 1.0) -> Array:
        """n new samples: g(z) for z ~ N(0, temperature²·I), in the user's units, shape and dtype.

        What is returned is the mean of p(x | z); its noise is not added.

        Parameters
        ----------
        n : int, at least 1
        random_state : None, int or RandomState
        temperature : float
            Below 1 draws nearer to the typical.
        """
        check_is_fitted(self, "model_")
        if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
            raise ParameterError(f"n must be an int of at least 1. Got {n!r} instead.")
        number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
        if not number or not 0 <= temperature < math.inf:
            raise ParameterError(
                f"temperature must be a number of at least 0. Got {temperature!r}."
            )
        rng = torch.Generator(self._device).manual_seed(seed_of(random_state))
        assert self.model_.p is not None
        z = temperature * self.model_.p.sample(int(n), self.latent_dim_, rng)
        return self.inverse_transform(z)

    @torch.no_grad()
    def log_likelihood(
        self, X: Any, *, n_samples: int = 100, random_state: Any = None
    ) -> NDArray[np.float64]:
        """log p(x) of each row in nats, the density of the user's own X, by importance sampling.

        log 1/K Σ_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound in expectation that rises to
        log p(x) with K = ``n_samples`` (Burda et al., arXiv:1509.00519). The scaling's Jacobian is
        included: X × 10 shifts it by −d·ln 10. For a Bernoulli it is a probability.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        n_samples : int, at least 1
            K, importance samples a row.
        random_state : None, int or RandomState
        """
        if isinstance(n_samples, bool) or not hasattr(n_samples, "__index__") or n_samples < 1:
            raise ParameterError(f"n_samples must be an int of at least 1. Got {n_samples!r}.")
        check_is_fitted(self, "model_")
        if self.distance_ == "bernoulli":
            refuse_not_binary(look_at_range([measured(self._admit(X))]))
        rng = torch.Generator(self._device).manual_seed(seed_of(random_state))
        volume = self.scaling_.log_volume(self.choices_.shape)

        def estimate(x: Tensor) -> Tensor:
            return self._log_mean_weight(x, rng, int(n_samples)) - volume

        return self._per_row(X, estimate)

    def _log_mean_weight(self, x: Tensor, rng: torch.Generator, n_samples: int) -> Tensor:
        """log-mean-exp of the importance weights, (B,), in batches that fit in memory."""
        most = max(1, inference_batch(self.choices_.shape))  # K·rows looked at together
        total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        rows_at_once = max(1, most // n_samples)
        samples_at_once = min(n_samples, most)
        for start in range(0, len(x), rows_at_once):
            part = slice(start, start + rows_at_once)
            for done in range(0, n_samples, samples_at_once):
                K = min(samples_at_once, n_samples - done)
                weights = self.model_.log_weights(x[part], rng, K).double()
                total[part] = torch.logaddexp(total[part], weights.logsumexp(0))
        return total - math.log(n_samples)

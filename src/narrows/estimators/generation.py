"""What a fitted model with a prior can do beside: draw new rows, and tell how likely rows are."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Generator, Tensor

from narrows.estimators.reconstruction import ReconstructionMixin
from narrows.estimators.resolved_config import ResolvedConfig, find_range
from narrows.estimators.sampler_fit import check_fitted_sampler
from narrows.estimators.setup import seed_of
from narrows.estimators.split import measured
from narrows.estimators.validation import Array
from narrows.exceptions import ParameterError
from narrows.parts.model import Model
from narrows.parts.priors.samplers import Sampler, draw
from narrows.training.batches import Scaling, inference_batch


def check_positive_int(name: str, value: Any) -> int:
    """``value`` as an int of at least 1; ParameterError for anything else."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ParameterError(f"{name} must be an int of at least 1. Got {value!r} instead.")
    return int(value)


def check_temperature(value: Any) -> float:
    """``value`` as a temperature; ParameterError for anything else."""
    number = hasattr(value, "__float__") and not isinstance(value, bool | str)
    if not number or not 0 <= float(value) < math.inf:
        raise ParameterError(f"temperature must be a number of at least 0. Got {value!r}.")
    return float(value)


def _samples(estimator: Any) -> bool:
    return bool(estimator._sampler_name() != "none")


def _has_density(estimator: Any) -> bool:
    return bool(estimator._likely)


class GenerativeMixin(ReconstructionMixin):
    """``sample`` and ``log_likelihood``, for the models that have them."""

    # whether the class has a prior and a likelihood; what is picked by parameters says so by a
    # property. And what sampler="auto" is, if not the prior where there is one
    _generates: ClassVar[Any] = False
    _likely: ClassVar[Any] = False
    _usual_sampler: ClassVar[str | None] = None
    sampler_: Sampler | None = None  # what was fitted to the codes after training

    model_: Model
    choices_: ResolvedConfig
    scaling_: Scaling

    def _from_model(self, scaled: Tensor, dtype: str | None = None) -> Array:
        rows = super()._from_model(scaled, dtype)
        classes = list(self.model_.D.classes)
        if classes:  # a scaling undone is off by what rounding left
            rows[:, classes] = np.rint(rows[:, classes])
        return rows

    def _sampler_name(self) -> str:
        """What codes are drawn from: "none", "prior", or what was fitted to codes."""
        asked: str = getattr(self, "sampler", "auto")
        return (
            asked if asked != "auto" else self._usual_sampler or ("none", "prior")[self._generates]
        )

    def _draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        """n codes."""
        name = self._sampler_name()
        if name == "prior":
            return self.model_.sample(n, rng, temperature)
        fitted = check_fitted_sampler(self.sampler_, name)
        return draw(fitted, self.model_.q, n, rng, temperature)

    @available_if(_samples)  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def sample(self, n: int = 1, *, random_state: Any = None, temperature: float = 1.0) -> Array:
        """n new samples: g(z) of codes drawn from the ``sampler``, in the user's own units.

        What is returned is the mean of p(x | z); its noise is not added.

        Parameters
        ----------
        n : int, at least 1
        random_state : None, int or RandomState
        temperature : float
            Below 1 draws nearer to the typical: a standard deviation times the temperature.
        """
        return self.inverse_transform(self._sampled_codes(n, random_state, temperature))

    def _check_fitted(self) -> None:
        check_is_fitted(self, "model_")

    def _sampled_codes(self, n: int, random_state: Any, temperature: float) -> Tensor:
        self._check_fitted()
        n, temperature = check_positive_int("n", n), check_temperature(temperature)
        rng = Generator(self._device).manual_seed(seed_of(random_state))
        return self._draw(n, rng, temperature)

    @available_if(_has_density)  # type: ignore[untyped-decorator]
    def log_likelihood(
        self, X: Any, *, n_samples: int = 100, random_state: Any = None
    ) -> NDArray[np.float64]:
        """log p(x) of each row in nats, the density of the user's own X, by importance sampling.

        log 1/K Σ_k p(x | z_k) p(z_k) / q(z_k | x), a lower bound in expectation that rises to
        log p(x) with K = ``n_samples`` (Burda et al., arXiv:1509.00519). The scaling's Jacobian is
        included: X × 10 shifts it by −d·ln 10. Of counts and classes it is a probability.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        n_samples : int, at least 1
            K, importance samples a row.
        random_state : None, int or RandomState
        """
        n_samples = check_positive_int("n_samples", n_samples)
        self._check_fitted()
        if not self.model_.D.density:
            raise ParameterError(
                f"distance={self.choices_.distance!r} is no density: it gives no likelihood; "
                'fit with distance="auto".'
            )
        D = self.model_.D
        if D.discrete or self.choices_.kinds is not None:
            D.validate(find_range([measured(self._admit(X))]), self.choices_.kinds)
        rng = Generator(self._device).manual_seed(seed_of(random_state))
        volume = D.log_volume(self.scaling_.scale.expand(self.choices_.shape).log())

        def estimate(x: Tensor) -> Tensor:
            counted = torch.where(x.isnan(), 0.0, volume).flatten(1).sum(1)
            return self._log_mean_weight(x, rng, n_samples) - counted

        return self._per_row(X, estimate)

    @torch.no_grad()
    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
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

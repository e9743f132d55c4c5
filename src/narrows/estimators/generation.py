"""Sampling and likelihood of fitted models with a prior, and the sampler fitted to their codes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if
from torch import Generator, Tensor

from narrows.estimators.fit_setup import find_range, statistics_of, unscaled
from narrows.estimators.fitted_state import sampler_name
from narrows.estimators.parameters import check_value, named_plainly, seed_of
from narrows.estimators.reconstruction import ReconstructionMixin, framed
from narrows.estimators.validation import Array
from narrows.exceptions import ParameterError
from narrows.parts.latents.vector_quantizer import Quantizer
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import SAMPLERS, Sampler, codes_of, draw, make_sampler
from narrows.training.batches import Rows, Scaling, inference_batch
from narrows.training.loop import train
from narrows.training.process_group import Group
from narrows.training.streamed_batches import Stream
from narrows.training.train_state import Budget, TrainConfig, TrainState

CPU = torch.device("cpu")
MAX_SAMPLER_ROWS = 20_000  # rows whose codes a sampler is fitted to
MAX_SAMPLER_EPOCHS = 30  # of the samplers that are trained


def _can_sample(model: GenerativeMixin) -> bool:
    return model._sampler_name() != "none"


def _has_density(model: GenerativeMixin) -> bool:
    return bool(model._likely)


@named_plainly
class GenerativeMixin(ReconstructionMixin):
    """``sample`` and ``log_likelihood``, for the models that have them."""

    # whether the class has a prior, and a likelihood; models whose parameters decide it have
    # properties of these names
    _generates: ClassVar[Any] = False
    _likely: ClassVar[Any] = False
    # what sampler="auto" means, if not the prior where there is one
    _usual_sampler: ClassVar[str | None] = None
    sampler: str = "auto"

    def _from_model(self, scaled: Tensor, dtype: str | None = None) -> Array:
        rows = super()._from_model(scaled, dtype)
        classes = list(self.state_.model.D.classes)
        if classes:  # a scaling undone is off by what rounding left
            rows[:, classes] = np.rint(rows[:, classes])
        return rows

    def _sampler_name(self) -> str:
        """What codes are drawn from: "none", "prior", or what was fitted to codes."""
        if self.sampler != "auto":
            return self.sampler
        return self._usual_sampler or ("prior" if self._generates else "none")

    def _draw(self, n: int, rng: Generator, temperature: float) -> Tensor:
        """n codes."""
        name = self._sampler_name()
        if name == "prior":
            return self.state_.model.sample(n, rng, temperature)
        fitted = check_fitted_sampler(self.state_.sampler, name)
        return draw(fitted, self.state_.model.q, n, rng, temperature)

    @available_if(_can_sample)  # type: ignore[untyped-decorator]
    @framed
    @torch.no_grad()
    def sample(self, n: int = 1, *, random_state: object = None, temperature: float = 1.0) -> Array:
        """n new samples: g(z) of codes drawn from the ``sampler``, in the user's own units.

        What is returned is the mean of p(x | z); its noise is not added.

        Parameters
        ----------
        n : int, at least 1
        random_state : None, int or RandomState
        temperature : float
            Below 1 draws nearer to the typical: a standard deviation times the temperature.
        """
        return self._rows(self._sampled_codes(n, random_state, temperature))

    def _sampled_codes(self, n: int, random_state: object, temperature: float) -> Tensor:
        check_value("n", n, kind=int, low=1)
        check_value("temperature", temperature, kind=float, low=0)
        rng = Generator(self._device).manual_seed(seed_of(random_state))
        return self._draw(n, rng, temperature)

    @available_if(_has_density)  # type: ignore[untyped-decorator]
    def log_likelihood(
        self, X: object, *, n_samples: int = 100, random_state: object = None
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
        check_value("n_samples", n_samples, kind=int, low=1)
        if not self.state_.model.D.density:
            raise ParameterError(
                f"distance={self.state_.config.distance!r} is no density: it gives no likelihood; "
                'fit with distance="auto".'
            )
        D = self.state_.model.D
        if D.discrete or self.state_.config.kinds is not None:
            rows = unscaled(self._validate(X), CPU)
            D.validate(find_range([statistics_of(rows)]), self.state_.config.kinds)
        rng = Generator(self._device).manual_seed(seed_of(random_state))
        volume = D.log_volume(self.state_.scaling.scale.expand(self.state_.config.shape).log())

        def estimate(x: Tensor) -> Tensor:
            gone = x.isnan()
            counted = torch.where(gone, 0.0, volume).flatten(1).sum(1)
            found = self._log_mean_weight(x, rng, n_samples) - counted
            return torch.where(gone.flatten(1).all(1), 0.0, found)  # of nothing: certain

        return self._per_row(X, estimate)

    @torch.no_grad()
    def _log_mean_weight(self, x: Tensor, rng: Generator, n_samples: int) -> Tensor:
        """log-mean-exp of the importance weights, (B,), in batches that fit in memory."""
        most = max(1, inference_batch(self.state_.config.shape))  # K·rows looked at together
        total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        rows_at_once = max(1, most // n_samples)
        samples_at_once = min(n_samples, most)
        for start in range(0, len(x), rows_at_once):
            part = slice(start, start + rows_at_once)
            for done in range(0, n_samples, samples_at_once):
                K = min(samples_at_once, n_samples - done)
                weights = self.state_.model.log_weights(x[part], rng, K).double()
                total[part] = torch.logaddexp(total[part], weights.logsumexp(0))
        return total - math.log(n_samples)


def fit_sampler(
    model: GenerativeMixin, batches: Iterable[Tensor], seed: int, group: Group
) -> Sampler | None:
    """The sampler of a fitted model, fitted to the codes of scaled rows; None if it needs no fit.

    It is trained by the same loop as the model.
    """
    name = model._sampler_name()
    if name not in SAMPLERS:
        return None
    device, module = model._device, model.state_.model
    own, there = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        codes = torch.cat([codes_of(module, x.to(device), there) for x in batches])
        codes = codes[torch.randperm(len(codes), generator=own)[:MAX_SAMPLER_ROWS].to(device)]
        if SAMPLERS[name].discrete:
            assert isinstance(module.q, Quantizer)
            codes = module.q.indices(codes).float()
        sampler = make_sampler(name, model._code_width(), module.q, own).to(device)
        codes = sampler.init_from_codes(codes, own)
    if sampler.trained:
        _train_sampler(sampler, codes, there, own, group)
    group.broadcast_(sampler.state_dict().values())  # all processes get those of rank 0
    return sampler.eval()


def rows_for_sampler(rows: Rows | Stream, seed: int) -> Iterator[Tensor]:
    """Scaled training rows in batches: all, or a random sample of very many."""
    batch = inference_batch(rows.shape)
    if isinstance(rows, Stream):
        yield from rows.sample(seed).split(batch)
        return
    if len(rows) > MAX_SAMPLER_ROWS:
        rng = torch.Generator().manual_seed(seed)
        picked = torch.randperm(len(rows), generator=rng)[:MAX_SAMPLER_ROWS].sort().values
        rows = Rows(rows.data.index_select(0, picked.to(rows.data.device)), rows.scaling)
    yield from rows.in_order(batch)


def _train_sampler(
    sampler: Sampler, codes: Tensor, rng: Generator, order: Generator, group: Group
) -> None:
    batch = max(32, min(256, len(codes) // 10))
    epochs = math.ceil(sampler.training_steps * batch / len(codes))
    epochs = max(1, min(MAX_SAMPLER_EPOCHS, epochs))
    config = TrainConfig(4e-3, 0.01, batch, warmup_steps=50, hold_fraction=0.3)
    rows = Rows(codes, Scaling.none().to(codes.device))
    state = TrainState(rng=rng, order=order)
    sampler.train()
    for _ in train(sampler, WeightedObjective(), rows, config, Budget(epochs), state, group):
        pass


def check_fitted_sampler(sampler: Sampler | None, asked: str) -> Sampler:
    """The sampler, if it is the one asked for."""
    if sampler is None or sampler_name(sampler) != asked:
        holds = f"another, {sampler_name(sampler)!r}" if sampler is not None else "none"
        raise ParameterError(
            f"sampler={asked!r} is fitted to codes at the end of fit, but this model holds {holds} "
            "(after partial_fit, an interrupted run, or a change of the parameter); call "
            "fit_sampler(X)."
        )
    return sampler

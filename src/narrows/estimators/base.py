"""The base every fixed-shape model stands on: scikit-learn's contract, once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from narrows.estimators.build_model import Parts, parts_of
from narrows.estimators.fitted_contents import FITTED, contents, restore
from narrows.estimators.generation import GenerativeMixin
from narrows.estimators.layout import Array
from narrows.estimators.lazy_rows import CheckedRows
from narrows.estimators.learner import Learner, all_or_nothing
from narrows.estimators.model_file import Contents
from narrows.estimators.parameters import Parameters
from narrows.estimators.pca import PCA
from narrows.estimators.reconstruction import PCABeside, ReconstructionMixin, mean_error
from narrows.estimators.resolved_config import ResolvedConfig
from narrows.estimators.run import Run, recipe_for
from narrows.estimators.sampler_fit import fit_sampler, some_rows
from narrows.estimators.setup import Training, prepare, resume
from narrows.estimators.summary import describe
from narrows.estimators.validation import validate_X
from narrows.estimators.workers import alone
from narrows.parts.model import Model
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import SAMPLERS, refuse_sampler
from narrows.training.monitor import Monitor
from narrows.training.process_group import joined
from narrows.training.state import Budget


class Fitted(GenerativeMixin):
    """Attributes of a fitted model. A plain mixin: annotations here are no constructor parameters."""

    model_: Model
    objective_: WeightedObjective
    choices_: ResolvedConfig
    _pca: PCA | None

    def _admit(self, X: Any) -> Array | CheckedRows:
        check_is_fitted(self, "model_")
        return validate_X(self, X, reset=False)

    def _encode(self, x: Tensor) -> Tensor:
        return self.model_.encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        return self.model_.decode(z)

    def _n_codes(self) -> int:
        check_is_fitted(self, "model_")
        return self.latent_dim_

    def _between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return self.model_.q.between(a, b, t)

    @property
    def pca_(self) -> PCABeside | None:
        """PCA of the same rows at the same width, asked the same questions; None if too wide."""
        return None if self._pca is None else PCABeside(self, self._pca)

    @property
    def encoder_(self) -> nn.Module:
        """f: scaled rows → what q makes a code of."""
        return self.model_.f

    @property
    def decoder_(self) -> nn.Module:
        """g: codes → scaled rows (logits where D is Bernoulli)."""
        return self.model_.g

    @property
    def latent_dim_(self) -> int:
        """Numbers in a code."""
        return self.choices_.latent_dim

    @property
    def _n_features_out(self) -> int:
        return self.choices_.latent_dim

    @property
    def architecture_(self) -> str:
        """``"dense"``, ``"conv"``, or ``"own"``."""
        return self.choices_.architecture

    @property
    def distance_(self) -> str:
        """The name of D."""
        return self.choices_.distance


@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(
    Parameters, Learner, Fitted, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Fit, transform, invert, score and save; a named model adds fields and ``_parts``."""

    _in_file: ClassVar = FITTED
    _errors: ClassVar = ("validation_error", "validation_error_pca")

    def _parts(self) -> Parts:
        """The parts this model picks."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "mask"
        tags.transformer_tags.preserves_dtype = []  # codes are float32, whatever X is
        return tags

    def transform(self, X: Any, *, out: str | Path | None = None, overwrite: bool = False) -> Any:
        # repeated here because scikit-learn wraps for set_output only what a class itself defines
        return ReconstructionMixin.transform(self, X, out=out, overwrite=overwrite)

    transform.__doc__ = ReconstructionMixin.transform.__doc__

    # ------------------------------------------------------------------ fitting

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Learn f and g from X.

        Parameters
        ----------
        X : array of shape (n, \\*shape), at least 2 rows
            A table (n, d), images (n, H, W) or (n, C, H, W), signals (n, C, L) with ``axes="CL"``;
            in any units and any real dtype. What is larger than memory comes as a memory map
            (``numpy.load(path, mmap_mode="r")``) or as anything else with ``shape``, ``dtype``,
            ``len`` and slices of rows, such as a zarr array or an h5py dataset; see ``in_memory``.
        y : ignored
        X_val : array like X, optional
            Rows to validate on, in place of a share of X (of what is larger than memory at most
            256 MiB).

        Raises
        ------
        InputError
            X cannot be used: it is empty, ragged, not finite, not numbers ...
        ParameterError
            A parameter is out of range or does not fit X.
        """
        return self._fit(X, X_val)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """One pass over X, warmed up once and then at a constant step size.

        The first call also learns the scaling and the PCA start, from its X alone. A sampler that
        is fitted to codes is not, but dropped: after the last call use ``fit_sampler``.

        Parameters
        ----------
        X : array of shape (n, \\*shape)
        y : ignored
        """
        started = time.monotonic()
        self.check_parameters()
        alone(self)
        with joined(), all_or_nothing(self):
            first = not hasattr(self, "model_")
            rows = validate_X(self, X, reset=first)
            if first:
                training = prepare(self, self._checked(), rows, rows, more_to_come=True)
            else:
                training = resume(self, rows, rows)
            self._hold(training, len(rows))
            recipe = recipe_for(self, len(training.rows), constant=True)
            reason = "partial_fit: one pass"
            after = 0 if first else len(self.history_)
            going = Run(self, training, Budget(1), recipe, (), False, reason, after)
            watch = going.go()
            if not first:
                self._append(watch)
            super()._adopt(training)  # codes move on with the next call: no sampler is fitted yet
            self._record(watch.history, watch.scores, watch.best_epoch, watch.stop_reason)
            seconds = 0.0 if first else self.fit_seconds_
            self.fit_seconds_ = seconds + time.monotonic() - started
        return self

    def _append(self, watch: Monitor) -> None:
        """Let the history of one more pass go on from that of all before."""
        epochs, seconds = len(self.history_), self.fit_seconds_
        for entry in watch.history:
            entry["epoch"] += epochs
            entry["seconds"] += seconds
        watch.history = [*self.history_, *watch.history]
        kept = watch.best_epoch > 0  # not where the pass ended in no number
        watch.best_epoch = len(self.validation_curve_) if kept else self.best_epoch_
        watch.scores = [*self.validation_curve_, *watch.scores[1:]]

    @available_if(lambda self: self._sampler_name() in SAMPLERS)  # type: ignore[untyped-decorator]
    def fit_sampler(self, X: Any) -> Self:
        """Fit what ``sample`` draws from to the codes of X, as ``fit`` does at its end.

        After ``partial_fit``, or when ``sampler`` was set to another; nothing else changes.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        """
        check_is_fitted(self, "model_")
        self.check_parameters()
        self._checked()
        self.sampler_ = fit_sampler(self, self._scaled(self._admit(X)), self._seed)
        return self

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON.

        Examples
        --------
        >>> from narrows import Autoencoder
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(64, 5))
        >>> Autoencoder(latent_dim=2, max_epochs=2, random_state=0).fit(X).info()["latent_dim"]
        2
        """
        check_is_fitted(self, "model_")
        return describe(self)

    # ------------------------------------------------------------------ what the loop's face asks

    def _take(self, X: Any, *, reset: bool) -> Any:
        return validate_X(self, X, reset=reset)

    def _prepare(self, rows: Any, held: Any) -> Training:
        return prepare(self, self._checked(), rows, held)

    def _resume(self, rows: Any, held: Any) -> Training:
        self._checked()
        return resume(self, rows, held)

    def _checked(self) -> Parts:
        parts = parts_of(self)
        refuse_sampler(self._sampler_name(), parts.q, parts.p is not None)
        return parts

    def _hold(self, training: Training, n_rows: int) -> None:
        super()._hold(training, n_rows)
        self.sampler_ = None

    def _adopt(self, training: Training) -> None:
        super()._adopt(training)
        self.sampler_ = fit_sampler(self, some_rows(training), training.seed)

    def _measure(self, training: Training) -> dict[str, float | None]:
        return {
            "validation_error": mean_error(self, training.validation),
            "validation_error_pca": mean_error(self.pca_, training.validation),
        }

    def _probe(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.randn((1, *self.choices_.shape), generator=rng, dtype=torch.float32)

    @torch.no_grad()
    def _reply(self, x: Tensor) -> tuple[Tensor, ...]:
        z = self._encode(x.to(self._device))
        output = self._decode(z)
        self._from_model(output)  # what a damaged scaling cannot undo is found here
        return z.cpu(), output.cpu()

    def _contents(self) -> Contents:
        return contents(self)

    def _restore(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
    ) -> None:
        restore(self, path, tensors, header, own)

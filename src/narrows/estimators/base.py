"""The base classes: `Learner`, whatever is fitted by the loop, and `Estimator`, rows of one shape.

`Learner` has fit, resume, save and load; `Estimator` adds scikit-learn's contract. All that a fit
learns is ``state_``, assigned once, at its end: a fit that fails changes nothing.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.metaestimators import available_if
from torch import Tensor, nn

from narrows.estimators import fit_and_resume, model_file
from narrows.estimators.build import ComposedParameters, Networks, Parts, parts_of
from narrows.estimators.fit_setup import (
    ERRORS,
    FEWEST_ROWS_TO_SCALE,
    FitData,
    Training,
    resume,
    same_mark,
    setup,
)
from narrows.estimators.fitted_state import EstimatorState, FittedState, History, pick_device
from narrows.estimators.generation import GenerativeMixin, fit_sampler, rows_for_sampler
from narrows.estimators.notebook import NotebookMixin, rows_to_show
from narrows.estimators.parameters import (
    Rule,
    RunParameters,
    lasting,
    named_plainly,
    seed_of,
)
from narrows.estimators.reconstruction import CodesToRows, PCABeside, RowsToCodes, mean_error
from narrows.estimators.summary import estimator_summary
from narrows.estimators.validation import Given, Layout, sklearn_attributes, validate_X
from narrows.exceptions import FileError, ParameterError
from narrows.io.safetensors_file import write_file
from narrows.io.write import check_output
from narrows.parts.priors.samplers import SAMPLERS, Sampler, validate_sampler
from narrows.training.batches import Scaling
from narrows.training.launcher import run_workers
from narrows.training.monitor import Monitor
from narrows.training.patches import Patches
from narrows.training.process_group import Group, current_group, join_group
from narrows.training.train_state import Budget

S = TypeVar("S", bound=FittedState)


@named_plainly
class Learner(RunParameters, Generic[S]):
    """Fit, resume, save and load. No dataclass: it adds no field.

    A subclass validates its data (``_validate_fit``), sets up training (``_setup``, ``_resume``)
    and makes the final state (``_finalize``).
    """

    _usual: ClassVar = fit_and_resume.Usual()
    _file_keys: ClassVar[Mapping[str, Rule]]  # of "fitted" in the header of a file
    _draw_probe: ClassVar[Callable[..., Tensor]] = torch.rand  # inputs like those of training
    test_size: float = 0.0  # a parameter of the models that know rows

    if TYPE_CHECKING:
        state_: S
    else:

        @cached_property
        def state_(self) -> S:
            """All that was learned. Fit assigns it, so this is called only before fit."""
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet; call fit first.")

    def _validate_fit(self, X: object, X_val: object, y: object, fitted: S | None) -> FitData[Any]:
        """X and X_val, checked; with ``fitted`` they must be like what it was fitted on."""
        raise NotImplementedError

    def _data_of_fit(
        self, X: object, X_val: object = None, y: object = None, fitted: S | None = None
    ) -> FitData[Any]:
        """X and X_val, checked and marked, without rows that are kept back or have no value."""
        data = self._validate_fit(X, X_val, y, fitted)
        return data.for_fit(self.test_size, whole=self.checkpoint is not None)

    def _setup(self, data: FitData[Any], group: Group) -> Training[S]:
        """A model ready to be trained on this data."""
        raise NotImplementedError

    def _resume(self, fitted: S, data: FitData[Any], group: Group) -> Training[S]:
        """Training that goes on from a fitted state, whose modules it may change."""
        raise NotImplementedError

    def _batch_size(self, training: Training[S]) -> int:
        """Default batch size."""
        return fit_and_resume.usual_batch(len(training.rows))

    def _finalize(self, training: Training[S], history: History, group: Group) -> S:
        """The state after training; the model holds the best weights."""
        return replace(training.start, history=history, train_state=training.state)

    @property
    def _probe_shape(self) -> tuple[int, ...]:
        """The shape of the input that a file keeps."""
        raise NotImplementedError

    def _probe_input(self) -> Tensor:
        """Some input like that of training, the same every time."""
        rng = torch.Generator().manual_seed(0)
        return self._draw_probe(self._probe_shape, generator=rng, dtype=torch.float32)

    def _probe_output(self, x: Tensor) -> tuple[Tensor, ...]:
        """The model's output for a probe; a file keeps it and every load must reproduce it."""
        raise NotImplementedError

    def _check_loaded(self, output: Tensor) -> None:
        """Raise if the state of a file cannot be used; ``output`` is the probe's."""

    def _state_from_tensors(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> S:
        """The state in a file; ``own`` are the user's own networks."""
        raise NotImplementedError

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON."""
        raise NotImplementedError

    # ------------------------------------------------------------------ fitting

    def fit(self, X: object, y: object = None, *, X_val: object = None) -> Self:
        """Learn from X."""
        raise NotImplementedError

    def _fit(self, X: object, X_val: object, y: object = None) -> Self:
        started = time.monotonic()
        self.check_parameters()
        if fit_and_resume.wants_workers(self):
            state = self._fit_in_workers(X=X, y=y, X_val=X_val)
            state = replace(state, parameters=lasting(self))  # its own f and g, not the workers'
            state = state.to(pick_device(self.device, current_group()))
            return self._attach(_timed(state, 0.0, started))
        with join_group() as group:
            fitted = vars(self).get("state_") if self.warm_start else None
            with group.all_or_none():
                data = self._data_of_fit(X, X_val, y, fitted)
                path = fit_and_resume.find_checkpoint(self)
            fit_and_resume.refuse_different_checkpoints(path, group)
            if path is not None:
                training = self._from_checkpoint(path, data, group)
            elif fitted is not None:
                training = self._resume(fitted.copy(), data, group)
            else:
                training = self._setup(data, group)
            batch_size = self._batch_size(training)
            config = fit_and_resume.train_config(self, training, batch_size, self._usual)
            budget = fit_and_resume.run_budget(self, training, config.batch_size, started)
            run = fit_and_resume.Run(
                self, training, budget, config, data.marks, self._content, group
            )
            state = self._trained(training, run.go(), group)
            ended = self.checkpoint is not None and not run.interrupted
            known = ended or data.spec is not None  # rows: a report looks for those held out
            state = replace(state, data=data.marks if known else None)
            before = training.saved[1]["seconds"] if training.saved else 0.0
        return self._attach(_timed(state, before, started))

    def _fit_in_workers(self, **data: object) -> S:
        """The state of a fit in as many processes as ``n_devices`` asks for.

        Optimizers stay behind, as in a file: a later fit with ``warm_start`` starts new ones.
        """
        fit_and_resume.check_workers_device(self.device, self.n_devices)
        sent = copy.copy(self)
        if self.random_state is not None:  # without a seed, rank 0 draws one
            # drawn here: a RandomState must advance once, in the caller's process
            sent.random_state = seed_of(self.random_state)
        state: S = run_workers(self.n_devices, _fit_portable, sent, data)
        return state

    def _trained(self, training: Training[S], monitor: Monitor, group: Group) -> S:
        training.start.model.eval()
        history = fit_and_resume.history_of(training.start.history, monitor)
        return self._finalize(training, history, group)

    def _from_checkpoint(self, path: Path, data: FitData[Any], group: Group) -> Training[S]:
        """The run of a checkpoint, put back to where it was interrupted."""
        tensors, header = model_file.read(path)
        run = header.get("training")
        if run is None:
            raise FileError(
                f"{path} is a model, not a checkpoint; give another name, or remove it."
            )
        if other := fit_and_resume.other_parameters(self, header):
            raise ParameterError(
                f"{path} {other}; give the same model and parameters to go on with it, or remove "
                "it to start afresh."
            )
        own = (vars(self).get(name) for name in ("f", "g"))
        fitted = model_file.estimator_from(path, tensors, header, *own).state_
        saved, seed = fit_and_resume.run_in_checkpoint(path, tensors, run, header, fitted, data)
        fitted = replace(fitted, seed=seed, parameters=lasting(self))
        return replace(self._resume(fitted, data, group), saved=saved)

    def _attach(self, state: S) -> Self:
        """Make this the fitted estimator of a state."""
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)  # scikit-learn reads them itself
        self.__dict__.update({} if state.spec is None else sklearn_attributes(state.spec))
        self.state_ = state
        return self

    def _with_state(self, state: S) -> Self:
        """Another estimator with the same parameters and this state."""
        other = object.__new__(type(self))
        other.__dict__.update(vars(self))
        return other._attach(state)

    def _content(self, state: S) -> fit_and_resume.Content:
        """The content of the file of this model with another state."""
        return self._with_state(state)._own_content()

    def _own_content(self) -> fit_and_resume.Content:
        x = self._probe_input()
        return model_file.content(self, self.state_, x, self._probe_output(x))

    # ------------------------------------------------------------------ learned attributes

    @property
    def model_(self) -> Any:
        """The fitted module."""
        return self.state_.model

    @property
    def objective_(self) -> Any:
        """What training minimized."""
        return self.state_.objective

    @property
    def choices_(self) -> Any:
        """The configuration with every "auto" resolved."""
        return self.state_.config

    @property
    def layout_(self) -> Layout | None:
        """The shape of a sample, for the user and for the networks; None: of any size."""
        return self.state_.layout

    @property
    def history_(self) -> list[dict[str, float]]:
        """One entry for each epoch."""
        return self.state_.history.epochs

    @property
    def validation_curve_(self) -> list[float]:
        """The selection score of the start and of each epoch, in nats per row."""
        return self.state_.history.scores

    @property
    def loss_curve_(self) -> list[float]:
        """The training loss of each epoch."""
        return [entry["loss"] for entry in self.history_]

    @property
    def best_epoch_(self) -> int:
        """The epoch whose weights were kept; 0 is the start."""
        return self.state_.history.best_epoch

    @property
    def best_loss_(self) -> float:
        """The selection score of the weights that were kept."""
        return self.validation_curve_[self.best_epoch_]

    @property
    def stop_reason_(self) -> str:
        """Why training ended."""
        return self.state_.history.stop_reason

    @property
    def n_iter_(self) -> int:
        """The number of epochs."""
        return len(self.history_)

    @property
    def fit_seconds_(self) -> float:
        """The duration of fit."""
        return self.state_.history.seconds

    @property
    def rows_(self) -> dict[str, int]:
        """The number of rows "given", and of those for "validation"."""
        return self.state_.history.rows

    @property
    def validation_errors_(self) -> dict[str, float | None]:
        """What ``info`` shows of the validation rows."""
        return self.state_.history.errors

    @property
    def n_parameters_(self) -> int:
        """Number of trainable parameters."""
        return sum(p.numel() for p in self.state_.model.parameters())

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the whole model to one safetensors file: weights, parameters, scaling, summary.

        Raises
        ------
        FileError
            The name does not end in .safetensors, the file exists already (and not ``overwrite``),
            or cannot be written.
        """
        check_output(path, [".safetensors"], overwrite=True)
        if current_group().rank == 0:  # all processes of a group hold the same model
            write_file(Path(path), *self._own_content(), overwrite=overwrite)
        return Path(path)

    @classmethod
    def load(
        cls, path: str | Path, *, f: nn.Module | None = None, g: nn.Module | None = None
    ) -> Self:
        """Load a model of this class from ``save``'s file.

        ``f`` and ``g`` are your own networks, where the model was fitted with some.
        """
        estimator = model_file.load(Path(path), f=f, g=g)
        if not isinstance(estimator, cls):
            raise ParameterError(
                f"{path} holds a {type(estimator).__name__}, not a {cls.__name__}; use "
                "narrows.load."
            )
        return estimator

    def _load_state(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> None:
        """Attach the state in a file, on the device of the parameters, or where that is missing
        on the CPU.
        """
        state = self._state_from_tensors(path, tensors, header, own)
        # older files do not tell the seed
        state = replace(state, data=header.get("data"), seed=header.get("seed", state.seed))
        with suppress(ParameterError):
            state = state.to(pick_device(self.device, current_group()))
        self._attach(state)

    def __getstate__(self) -> dict[str, Any]:
        # optimizers and generators stay behind, and the rest moves to the CPU: what is pickled on
        # one machine must open on any other
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        if "state_" in state:
            # their run is over, and a lambda among them would prevent pickling; an unfitted
            # estimator takes them along, as to a process of GridSearchCV
            state = {**state, "state_": self.state_.portable(), "listeners": None}
        return state


def _fit_portable(estimator: Learner[S], data: dict[str, Any]) -> S:
    """In a worker: all of them learn the same, and rank 0's state is taken."""
    return estimator._fit(**data).state_.portable()


def _timed(state: S, before: float, started: float) -> S:
    """The state, whose fit took ``before`` seconds and the time since ``started``."""
    seconds = before + time.monotonic() - started
    return replace(state, history=replace(state.history, seconds=seconds))


@named_plainly
@dataclass(kw_only=True, eq=False, repr=False)
class Estimator(
    ComposedParameters,
    Learner[EstimatorState],
    GenerativeMixin,
    ClassNamePrefixFeaturesOutMixin,
    NotebookMixin,
):
    """Fit, transform, invert, score and save; a named model adds fields and ``_parts``."""

    _file_keys: ClassVar = EstimatorState.keys
    _draw_probe: ClassVar = torch.randn

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "mask"
        tags.transformer_tags.preserves_dtype = []  # codes are float32, whatever X is
        return tags

    # ------------------------------------------------------------------ fitting

    def fit(self, X: object, y: object = None, *, X_val: object = None) -> Self:
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

    def partial_fit(self, X: object, y: object = None) -> Self:
        """One pass over X, warmed up once and then at a constant step size.

        The first call also learns the scaling and the PCA start, from its X alone; as long as all
        calls together had fewer than 50 rows, the next one starts again, from all of them. Zeros
        and ones are taken for binary data only if X is boolean, or with ``distance="bernoulli"``. A
        sampler that is fitted to codes is dropped: after the last call use ``fit_sampler``.

        Parameters
        ----------
        X : array of shape (n, \\*shape)
        y : ignored
        """
        started = time.monotonic()
        self.check_parameters()
        fit_and_resume.refuse_workers(self)
        with join_group() as group:
            fitted = vars(self).get("state_")
            first = None if fitted is None else fitted.first_rows
            data = self._validate_fit(X, None, None, fitted).for_fit(few=True)
            if not len(data.rows):
                return self
            rows = data.rows if first is None else np.concatenate([first, data.rows[:]])
            data = replace(data, rows=rows, held=rows)  # validated on the rows of this pass
            if fitted is None or first is not None:
                training = self._setup(data, group, bounded=False)
            else:
                training = self._resume(fitted.copy(), data, group)
            config = fit_and_resume.train_config(
                self,
                training,
                fit_and_resume.usual_batch(len(training.rows)),
                self._usual,
                constant=True,
            )
            reason = "partial_fit: one pass"
            after = 0 if fitted is None else len(fitted.history.epochs)
            run = fit_and_resume.Run(
                self, training, Budget(1), config, None, self._content, group, reason, after
            )
            monitor = run.go()
            training.start.model.eval()
            history = fit_and_resume.history_of(training.start.history, monitor)
            history = replace(history, errors=self._errors(training))
            if fitted is not None:
                history = _appended(fitted.history, history)
            # codes move with every call: no sampler is fitted yet
            decided = fitted is not None and first is None
            few = not decided and len(rows) < FEWEST_ROWS_TO_SCALE
            state = replace(
                training.start,
                history=history,
                train_state=training.state,
                data=None,
                first_rows=np.array(rows[:]) if few else None,  # a copy: a buffer may change
            )
        return self._attach(_timed(state, 0.0 if fitted is None else self.fit_seconds_, started))

    @available_if(lambda self: self._sampler_name() in SAMPLERS)  # type: ignore[untyped-decorator]
    def fit_sampler(self, X: object) -> Self:
        """Fit what ``sample`` draws from to the codes of X, as ``fit`` does at its end.

        After ``partial_fit``, or when ``sampler`` was set to another; nothing else changes.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        """
        self.check_parameters()
        self._check_parts()
        batches = self._scaled(self._validate(X))
        sampler = fit_sampler(self, batches, self.state_.seed, current_group())
        return self._attach(replace(self.state_, sampler=sampler))

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
        return estimator_summary(self, self.state_)

    # ------------------------------------------------------------------ what Learner asks

    def _validate_fit(
        self, X: object, X_val: object, y: object, fitted: EstimatorState | None
    ) -> FitData[Given]:
        rows, spec = validate_X(self, X, None if fitted is None else fitted.spec)
        held = None if X_val is None else validate_X(self, X_val, spec)[0]
        return FitData(rows, held, spec)

    def _check_parts(self) -> Parts:
        parts = parts_of(self)
        name = self._sampler_name()
        if name != "none":
            validate_sampler(name, parts.q, parts.p is not None)
        return parts

    def _batch_size(self, training: Training[EstimatorState]) -> int:
        dense = training.start.config.architecture == "dense"
        return fit_and_resume.usual_batch(len(training.rows), self.max_epochs if dense else 0)

    def _setup(
        self, data: FitData[Given], group: Group, *, bounded: bool = True
    ) -> Training[EstimatorState]:
        return setup(self, self._check_parts(), data, group, bounded=bounded)

    def _resume(
        self, fitted: EstimatorState, data: FitData[Given], group: Group
    ) -> Training[EstimatorState]:
        self._check_parts()
        return resume(self, fitted, data, group)

    def _finalize(
        self, training: Training[EstimatorState], history: History, group: Group
    ) -> EstimatorState:
        history = replace(history, errors=self._errors(training))
        state = super()._finalize(training, history, group)
        fitted, seed = self._with_state(state), state.seed
        assert not isinstance(training.rows, Patches)  # those are of images of any size
        batches = rows_for_sampler(training.rows, seed)
        shown = rows_to_show(training.validation, state.config.shape)
        return replace(state, sampler=fit_sampler(fitted, batches, seed, group), shown_rows=shown)

    def _errors(self, training: Training[EstimatorState]) -> dict[str, float | None]:
        """The mean squared error on the validation rows, and PCA's."""
        fitted, rows = self._with_state(training.start), training.validation
        pca = fitted.pca_
        errors = mean_error(fitted, rows), None if pca is None else mean_error(pca, rows)
        return dict(zip(ERRORS, errors, strict=True))

    @property
    def _probe_shape(self) -> tuple[int, ...]:
        return 1, *self.state_.config.shape

    @torch.no_grad()
    def _probe_output(self, x: Tensor) -> tuple[Tensor, ...]:
        model = self.state_.model
        z = model.encode(x.to(self.state_.scaling.shift.device))
        return z.cpu(), model.decode(z).cpu()

    def _check_loaded(self, output: Tensor) -> None:
        self._from_model(output.to(self._device))  # finds a damaged scaling

    def _state_from_tensors(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> EstimatorState:
        if own is not None:
            self.f, self.g = own
        return EstimatorState.from_tensors(self, path, tensors, header, own)

    def _interpolate(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        return self.state_.model.q.between(a, b, t)

    # ------------------------------------------------------------------ learned attributes

    @property
    def layout_(self) -> Layout:
        """The shape of a sample, for the user and for the networks."""
        return self.state_.layout

    @property
    def input_shape_(self) -> tuple[int, ...]:
        """The shape of a sample."""
        return self.state_.layout.user_shape

    @property
    def scaling_(self) -> Scaling:
        """How rows are scaled."""
        return self.state_.scaling

    @property
    def sampler_(self) -> Sampler | None:
        """What was fitted to the codes after training, to draw new ones from."""
        return self.state_.sampler

    @property
    def pca_(self) -> PCABeside | None:
        """PCA of the same rows at the same width, with the same methods; None if too wide."""
        pca = self.state_.pca
        return None if pca is None else PCABeside(self.state_, pca, self._validate)

    @property
    def encoder_(self) -> nn.Module:
        """A module from rows to codes: ``encoder_(torch.from_numpy(X))`` is ``transform(X)``.

        Scaling is part of it. The bare network f, between scaled rows and q, is ``model_.f``.
        """
        return RowsToCodes(self.state_)

    @property
    def decoder_(self) -> nn.Module:
        """A module from codes to rows in X's units and shape, not rounded to X's dtype.

        The bare network g, whose output is scaled (logits where D is Bernoulli), is ``model_.g``.
        """
        return CodesToRows(self.state_)

    @property
    def latent_dim_(self) -> int:
        """Numbers in a code."""
        return self.state_.config.latent_dim

    @property
    def _n_features_out(self) -> int:
        return self.state_.config.latent_dim

    @property
    def architecture_(self) -> str:
        """``"dense"``, ``"conv"``, or ``"own"``."""
        return self.state_.config.architecture

    @property
    def distance_(self) -> str:
        """The name of D."""
        return self.state_.config.distance


def with_feature_names(estimator: Estimator, names: list[str] | None) -> Estimator:
    """The same fitted model with other names of its columns; with None it takes arrays."""
    state = estimator.state_
    columns = None if names is None else np.array(names, dtype=object)
    return estimator._with_state(replace(state, spec=replace(state.spec, feature_names=columns)))


def difference(estimator: Learner[Any], path: Path, X: object, y: object = None) -> str:
    """How the model file at ``path`` is not the result of this very fit; empty if it is."""
    header = model_file.read(path)[1]
    if other := fit_and_resume.other_parameters(estimator, header):
        return f"{path} {other}"
    if header["fitted"]["stop_reason_"] == "interrupted":
        return f"{path} is the result of a fit that was interrupted"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the fit warns, if there is one
        now = estimator._data_of_fit(X, None, y).marks
    then = header.get("data", now)  # older files do not tell
    same = len(then) == len(now) and all(map(same_mark, then, now))
    return "" if same else f"{path} is the result of a fit on other data"


def _appended(before: History, last: History) -> History:
    """The history of one more pass, behind that of all before."""
    epochs = len(before.epochs)
    for entry in last.epochs:
        entry["epoch"] += epochs
        entry["seconds"] += before.seconds
    kept = last.best_epoch > 0  # not where the pass ended in a loss that is not finite
    return replace(
        last,
        epochs=[*before.epochs, *last.epochs],
        scores=[*before.scores, *last.scores[1:]],
        best_epoch=len(before.scores) if kept else before.best_epoch,
    )

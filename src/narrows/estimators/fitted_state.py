"""All that ``fit`` learns, as one typed value: `FittedState`.

It is made once, at the end of a fit, and assigned once, as ``estimator.state_``; every learned
attribute of an estimator reads it. A file holds what `FittedState.to_tensors` returns, and
``from_tensors`` reads it back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from narrows.estimators.build import (
    ComposedParameters,
    Networks,
    ResolvedConfig,
    build_model,
    channels_last,
    fingerprint,
    parts_of,
)
from narrows.estimators.parameters import MAX_SIDE, Rule, lasting, resolved, rules_of, seed_of
from narrows.estimators.pca import PCA
from narrows.estimators.validation import InputSpec, Layout
from narrows.exceptions import FileError, ParameterError
from narrows.parts.latents.base import Latent
from narrows.parts.model import Model
from narrows.parts.networks.architectures import FlattenLast, UnflattenLast
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import SAMPLERS, Sampler, make_sampler
from narrows.training.batches import Scaling, as_tensor
from narrows.training.checkpoint import COUNT, EPOCHS, SCORE, SCORES, SECONDS, TEXT, Marks
from narrows.training.process_group import Group
from narrows.training.train_state import TrainState

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class History:
    """How training went.

    ``epochs`` has one entry per epoch, ``scores`` the selection score of the start and of each
    epoch (nats per row), ``errors`` what is measured on the validation rows at the end.
    """

    rows: dict[str, int]  # "given" and "validation"
    errors: dict[str, float | None]
    epochs: list[dict[str, float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    stop_reason: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Under the names that a file has for them."""
        return {name: vars(self)[key] for name, key in HISTORY_KEYS.items()}

    @classmethod
    def from_json(cls, fitted: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        found = cls(**{key: fitted[name] for name, key in HISTORY_KEYS.items()})
        if not len(found.scores) == len(found.epochs) + 1 > found.best_epoch:
            raise ValueError("its history and its scores differ in length")
        return found


# name in a file: field of History
HISTORY_KEYS = {
    "history_": "epochs",
    "validation_curve_": "scores",
    "best_epoch_": "best_epoch",
    "stop_reason_": "stop_reason",
    "fit_seconds_": "seconds",
    "rows_": "rows",
    "validation_errors_": "errors",
}
HISTORY_RULES: dict[str, Rule] = {
    "history_": EPOCHS,
    "validation_curve_": SCORES,
    "best_epoch_": COUNT,
    "stop_reason_": TEXT,
    "fit_seconds_": SECONDS,
    "rows_": {"fields": {"given": COUNT, "validation": COUNT}},
    "validation_errors_": {"each": SCORE, "named": True, "most": 8},
}


@dataclass(frozen=True, kw_only=True)
class FittedState:
    """What every fit learns; subclasses add what their kind of model needs.

    ``config`` has every "auto" resolved; ``parameters`` are those that the model was fitted with
    and that a later fit must share; ``train_state`` has the optimizers and generators with which
    training goes on (None after loading); ``versions`` say what made the model (None: this run);
    ``data`` marks what it was fitted on (of images of any size: if a run with a checkpoint ended).
    """

    keys: ClassVar[Mapping[str, Rule]] = HISTORY_RULES  # what a header has under "fitted"
    changing: ClassVar[tuple[str, ...]] = ("model", "objective", "train_state")

    model: nn.Module
    objective: WeightedObjective
    config: Any
    history: History
    seed: int
    parameters: dict[str, Any]
    train_state: TrainState | None = None
    versions: dict[str, str] | None = None
    data: Marks | None = None
    spec: InputSpec | None = None  # what later X must match; None: images of any size

    def to_tensors(self) -> tuple[Tensors, dict[str, Any]]:
        """The tensors of a file, and what its header holds under "fitted"."""
        tensors = with_prefix("model.", self.model) | with_prefix("objective.", self.objective)
        return tensors, {"choices": asdict(self.config), **self.history.to_json()}

    @property
    def layout(self) -> Layout | None:
        """The shape of a sample; None for images of any size."""
        return None if self.spec is None else self.spec.layout

    def modules(self) -> list[nn.Module]:
        """The modules that move to a device."""
        return [self.model, self.objective]

    def to(self, device: torch.device) -> Self:
        """The same on a device; modules are moved in place."""
        for module in self.modules():
            module.to(device)
        return self

    def portable(self) -> Self:
        """A copy on the CPU, for any machine; optimizers and generators stay behind."""
        return replace(self.copy(), train_state=None).to(CPU)

    def copy(self) -> Self:
        """The same with modules and optimizers copied; what never changes is shared.

        Training goes on with the copy, so that this state stays as it is if that fails.
        """
        # one call: the copied optimizers must refer to the copied weights
        changing = {name: vars(self)[name] for name in self.changing}
        return replace(self, **copy.deepcopy(changing))


UNITS_DTYPES = {torch.float32, torch.float64}


def with_prefix(prefix: str, module: nn.Module) -> Tensors:
    """A module's tensors under a prefix of their names."""
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def without_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors that have the prefix, under their names without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def load_module(module: nn.Module, prefix: str, tensors: Tensors) -> None:
    """Give a module its tensors of a file; raises ValueError or RuntimeError if it has others."""
    given = without_prefix(prefix, tensors)
    for name, tensor in module.state_dict().items():
        dtypes = {given[name].dtype, tensor.dtype} if name in given else set()
        # the units of the data are float64, and float32 in older files
        if len(dtypes) > 1 and not (name.startswith("D.") and dtypes <= UNITS_DTYPES):
            raise ValueError(f"{prefix}{name} is {given[name].dtype}, not {tensor.dtype}")
    module.load_state_dict(given, assign=True)


def refuse_own_networks(path: Path, own: Networks | None) -> None:
    """Refuse f and g for a file that holds its networks."""
    if own is not None:
        raise ParameterError(f"{path} holds its own networks; load it without f and g.")


@dataclass(frozen=True, kw_only=True)
class EstimatorState(FittedState):
    """What a model of rows of one shape learns."""

    keys: ClassVar[Mapping[str, Rule]] = {
        **FittedState.keys,
        "choices": rules_of(ResolvedConfig),
        "layout": rules_of(Layout),
        "scaling": resolved("scaling"),
        "feature_names_in_": {"each": TEXT, "most": MAX_SIDE, "none": True},
        "pca_noise": {"kind": float, "low": 0, "none": True},
        "networks": {"each": TEXT, "most": 2, "none": True},
    }

    changing: ClassVar[tuple[str, ...]] = (*FittedState.changing, "sampler")

    model: Model
    config: ResolvedConfig
    spec: InputSpec
    scaling: Scaling
    pca: PCA | None  # of the same rows at the same width; None if that would be too large
    sampler: Sampler | None = None  # fitted to the codes after training
    classes: NDArray[Any] | None = None  # of a class-conditional model
    first_rows: NDArray[Any] | None = None  # of partial_fit, while too few to decide by for good
    shown_rows: NDArray[Any] | None = field(default=None, repr=False)  # in memory only, after fit

    @property
    def layout(self) -> Layout:
        """The shape of a sample."""
        return self.spec.layout

    def portable(self) -> Self:
        """A copy on the CPU; optimizers, generators and the rows of the data stay behind."""
        return replace(super().portable(), shown_rows=None)

    def modules(self) -> list[nn.Module]:
        """The modules that move to a device."""
        return [*super().modules(), *([] if self.sampler is None else [self.sampler])]

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(super().to(device), scaling=self.scaling.to(device))

    def to_tensors(self) -> tuple[Tensors, dict[str, Any]]:
        """The tensors of a file, and what its header holds under "fitted"."""
        tensors, header = super().to_tensors()
        tensors |= {"scaling.shift": self.scaling.shift, "scaling.scale": self.scaling.scale}
        tensors |= sampler_to_tensors(self.sampler)
        tensors |= {} if self.first_rows is None else {FIRST_ROWS: as_tensor(self.first_rows)}
        if self.pca is not None:
            tensors |= {f"pca.{name}": vars(self.pca)[name] for name in PCA_TENSORS}
        own, names = self.config.architecture == "own", self.spec.feature_names
        header |= {
            "layout": asdict(self.layout),
            "scaling": self.scaling.kind,
            "feature_names_in_": None if names is None else [str(n) for n in names],
            "pca_noise": None if self.pca is None else self.pca.noise,
            "networks": [fingerprint(self.model.f), fingerprint(self.model.g)] if own else None,
        }
        return tensors, header | ({} if self.classes is None else {CLASSES: self.classes.tolist()})

    @classmethod
    def from_tensors(
        cls,
        estimator: ComposedParameters,
        path: Path,
        tensors: Tensors,
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> Self:
        """The state in a file of an unfitted ``estimator``'s class and parameters.

        ``own`` are the user's networks, where the model was fitted with some.
        """
        fitted = header["fitted"]
        config = ResolvedConfig.from_json(fitted["choices"])
        if config.architecture == "own":
            own = _checked_networks(path, own, fitted["networks"])
        else:
            refuse_own_networks(path, own)
        layout = Layout(**{**fitted["layout"], "user_shape": tuple(fitted["layout"]["user_shape"])})
        if layout.shape != config.shape:
            raise ValueError("its shapes contradict each other")
        names = fitted["feature_names_in_"]
        if names is not None and len(names) != layout.n_features:
            raise ValueError(f"it has {len(names)} names for {layout.n_features} columns")
        classes = np.asarray(fitted[CLASSES]) if CLASSES in fitted else None
        if classes is not None and not np.array_equal(classes, np.unique(classes)):
            raise ValueError("its classes are not in order")
        with torch.device("meta"):  # nothing is allocated before all shapes agree
            parts = parts_of(estimator)
            n_classes = 0 if classes is None else len(classes)
            model = build_model(parts, config, own, None, n_classes)
            objective = parts.objective()
        tensors = migrate(tensors, header["format"], model)
        load_module(model, "model.", tensors)
        load_module(objective, "objective.", tensors)
        pca = None
        if fitted["pca_noise"] is not None:
            kept = {name: tensors[f"pca.{name}"] for name in PCA_TENSORS}
            pca = PCA(**kept, noise=fitted["pca_noise"])
            _check_pca(pca, layout.n_features)
        scaling = Scaling(fitted["scaling"], tensors["scaling.shift"], tensors["scaling.scale"])
        _check_scaling(scaling, config.shape)
        return cls(
            model=channels_last(model.eval()),
            objective=objective,
            config=config,
            history=History.from_json(fitted),
            seed=seed_of(estimator.random_state),
            parameters=lasting(estimator),
            versions=header["versions"],
            spec=InputSpec(layout, None if names is None else np.array(names, dtype=object)),
            scaling=scaling,
            pca=pca,
            sampler=sampler_from_tensors(tensors, config.latent_dim, model.q),
            classes=classes,
            first_rows=_first_rows(tensors, config.shape, estimator.missing == "mask"),
        )


def _check_pca(pca: PCA, features: int) -> None:
    """Raise ValueError unless the tensors are a PCA's of so many features."""
    k = len(pca.variances)
    shapes = [tuple(tensor.shape) for tensor in (pca.mean, pca.components, pca.variances)]
    if shapes != [(features,), (k, features), (k,)] or pca.components.dtype != torch.float32:
        raise ValueError(f"its PCA has tensors of the shapes {shapes}")


def _check_scaling(scaling: Scaling, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless rows of this shape can be scaled, and scaled back, by it."""
    for part in (scaling.shift, scaling.scale):
        fits = part.ndim == len(shape) and all(
            n in (1, m) for n, m in zip(part.shape, shape, strict=True)
        )
        if not fits or part.dtype != torch.float64:
            raise ValueError(f"its scaling has a tensor of shape {tuple(part.shape)}")
    if not bool((scaling.scale > 0).all()):
        raise ValueError("its scaling has a scale that is not above 0")


def _first_rows(tensors: Tensors, shape: tuple[int, ...], missing: bool) -> NDArray[Any] | None:
    """Those in a file; raises ValueError unless they are rows that a fit could have been given."""
    rows = tensors.get(FIRST_ROWS)
    if rows is None:
        return None
    bad = rows.isinf() if missing else ~rows.isfinite()
    if rows.shape[1:] != shape or not len(rows) or bool(bad.any()):
        raise ValueError("its first rows are not like those of its fit")
    return rows.numpy()


PCA_TENSORS = ("mean", "components", "variances")
FIRST_ROWS = "first_rows"  # a tensor that only some files have
CLASSES = "classes_"  # in the header of a class-conditional model


def _checked_networks(path: Path, own: Networks | None, kept: list[str]) -> Networks:
    """The user's networks, if they are built as those that the file was saved with."""
    if own is None:
        raise FileError(
            f"{path} holds the weights of your own networks, not their code; load it with "
            "narrows.load(path, f=..., g=...)."
        )
    if [fingerprint(net) for net in own] != kept:
        raise FileError(
            f"The f and g given are built differently from those {path} was saved with; give the "
            "same two modules."
        )
    return copy.deepcopy(own)  # the estimator keeps the ones it is given


def sampler_from_tensors(tensors: dict[str, Tensor], latent_dim: int, q: Latent) -> Sampler | None:
    """The sampler in a file, whose tensors are named sampler.NAME.*; None if there is none."""
    state = {n.split(".", 2)[2]: t for n, t in tensors.items() if n.startswith("sampler.")}
    if not state:
        return None
    name = next(n.split(".", 2)[1] for n in tensors if n.startswith("sampler."))
    with torch.device("meta"):
        sampler = make_sampler(name, latent_dim, q, None)
    # copied to where torch aligns tensors: how a product rounds depends on that
    load_module(sampler, "", {n: t.clone() for n, t in state.items()})
    sampler.refuse_damage()
    return sampler.eval()


def sampler_to_tensors(sampler: Sampler | None) -> dict[str, Tensor]:
    """The inverse of `sampler_from_tensors`."""
    if sampler is None:
        return {}
    return {f"sampler.{sampler_name(sampler)}.{n}": t for n, t in sampler.state_dict().items()}


def sampler_name(sampler: Sampler | None) -> str:
    """The name of a fitted sampler."""
    return next((name for name, cls in SAMPLERS.items() if type(sampler) is cls), "none")


def pick_device(asked: str, group: Group) -> torch.device:
    """The device asked for; "auto": CUDA where there is one, else the CPU."""
    if asked == "auto":
        return group.local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = group.local_device(torch.device(asked))
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError) as error:
        raise ParameterError(
            f"device={asked!r} is not available on this machine; use 'auto' or 'cpu'."
        ) from error
    return device


# ---------------------------------------------------------------------- files of older formats


def migrate(tensors: dict[str, Tensor], version: int, model: Model) -> dict[str, Tensor]:
    """The tensors of a file of format ``version``, for the ``model`` that is built today.

    1 → 2: a 2-D convolutional network folds its feature maps with the channels last.
    """
    return _channels_last(tensors, model) if version < 2 else tensors


def _channels_last(tensors: dict[str, Tensor], model: Model) -> dict[str, Tensor]:
    new = dict(tensors)
    channels = [m.shape[-1] for m in model.g.modules() if isinstance(m, UnflattenLast)]
    for name, layers in model.named_modules():
        if not isinstance(layers, nn.Sequential):
            continue
        for i, layer in enumerate(layers):
            if isinstance(layer, FlattenLast):
                _reorder(new, f"model.{name}.{i + 1}.weight", channels[0], 1)
            if isinstance(layer, UnflattenLast):  # a linear layer and its activation come before
                for part in ("weight", "bias"):
                    _reorder(new, f"model.{name}.{i - 2}.{part}", channels[0], 0)
    return new


def _reorder(tensors: dict[str, Tensor], name: str, channels: int, axis: int) -> None:
    """One axis from (C, H·W) to (H·W, C), both folded."""
    given = tensors[name]
    unfolded = given.unflatten(axis, (channels, -1))
    tensors[name] = unfolded.movedim(axis, axis + 1).reshape(given.shape)

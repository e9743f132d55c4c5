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
from narrows.estimators.migrations import migrate
from narrows.estimators.parameters import lasting, seed_of
from narrows.estimators.pca import PCA
from narrows.estimators.validation import InputSpec, Layout
from narrows.exceptions import FileError, ParameterError
from narrows.parts.latents.base import Latent
from narrows.parts.model import Model
from narrows.parts.objective import WeightedObjective
from narrows.parts.priors.samplers import SAMPLERS, Sampler, make_sampler
from narrows.training.batches import Scaling
from narrows.training.process_group import Group
from narrows.training.train_state import TrainState

CPU = torch.device("cpu")
DATA = "data"  # in the header of a file; those of earlier versions lack it
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
        return {name: getattr(self, key) for name, key in HISTORY_KEYS.items()}

    @classmethod
    def from_json(cls, fitted: dict[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(**{key: fitted[name] for name, key in HISTORY_KEYS.items()})


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


@dataclass(frozen=True, kw_only=True)
class FittedState:
    """What every fit learns; subclasses add what their kind of model needs.

    ``config`` has every "auto" resolved; ``parameters`` are those that the model was fitted with
    and that a later fit must share; ``train_state`` has the optimizers and generators with which
    training goes on (None after loading); ``versions`` say what made the model (None: this run).
    """

    keys: ClassVar[frozenset[str]] = frozenset({"choices", *HISTORY_KEYS})  # in a file's header
    changing: ClassVar[tuple[str, ...]] = ("model", "objective", "train_state")

    model: nn.Module
    objective: WeightedObjective
    config: Any
    history: History
    seed: int
    parameters: dict[str, Any]
    train_state: TrainState | None = None
    versions: dict[str, str] | None = None
    spec: InputSpec | None = None  # what later X must match; None: images of any size
    # "seed", and by what "X" and "X_val" are recognized; None: not known (files before 0.2)
    data: dict[str, Any] | None = None

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
        changing = {name: getattr(self, name) for name in self.changing}
        return replace(self, **copy.deepcopy(changing))


def with_prefix(prefix: str, module: nn.Module) -> Tensors:
    """A module's tensors under a prefix of their names."""
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def without_prefix(prefix: str, tensors: Tensors) -> Tensors:
    """The tensors that have the prefix, under their names without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def refuse_own_networks(path: Path, own: Networks | None) -> None:
    """Refuse f and g for a file that holds its networks."""
    if own is not None:
        raise ParameterError(f"{path} holds its own networks; load it without f and g.")


@dataclass(frozen=True, kw_only=True)
class EstimatorState(FittedState):
    """What a model of rows of one shape learns."""

    keys: ClassVar[frozenset[str]] = FittedState.keys | {
        "layout",
        "scaling",
        "feature_names_in_",
        "pca_noise",
        "networks",
        DATA,
    }

    changing: ClassVar[tuple[str, ...]] = (*FittedState.changing, "sampler")

    model: Model
    config: ResolvedConfig
    spec: InputSpec
    scaling: Scaling
    pca: PCA | None  # of the same rows at the same width; None if that would be too large
    sampler: Sampler | None = None  # fitted to the codes after training
    classes: NDArray[Any] | None = None  # of a class-conditional model

    @property
    def layout(self) -> Layout:
        """The shape of a sample."""
        return self.spec.layout

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
        header |= {} if self.data is None else {DATA: self.data}
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
        fitted, data = header["fitted"], header["fitted"].get(DATA)
        config = ResolvedConfig.from_json(fitted["choices"])
        if config.architecture == "own":
            own = _checked_networks(path, own, fitted["networks"])
        else:
            refuse_own_networks(path, own)
        layout = Layout(**{**fitted["layout"], "user_shape": tuple(fitted["layout"]["user_shape"])})
        if layout.shape != config.shape:
            raise ValueError("its shapes contradict each other")
        names = fitted["feature_names_in_"]
        classes = np.asarray(fitted[CLASSES]) if CLASSES in fitted else None
        with torch.device("meta"):  # nothing is allocated before all shapes agree
            parts = parts_of(estimator)
            n_classes = 0 if classes is None else len(classes)
            model = build_model(parts, config, own, None, n_classes)
            objective = parts.objective()
        tensors = migrate(tensors, header["format"], model)
        model.load_state_dict(without_prefix("model.", tensors), assign=True)
        objective.load_state_dict(without_prefix("objective.", tensors), assign=True)
        pca = None
        if fitted["pca_noise"] is not None:
            kept = {name: tensors[f"pca.{name}"] for name in PCA_TENSORS}
            pca = PCA(**kept, noise=fitted["pca_noise"])
        scale = tensors["scaling.shift"], tensors["scaling.scale"]
        return cls(
            model=channels_last(model.eval()),
            objective=objective,
            config=config,
            history=History.from_json(fitted),
            seed=seed_of(estimator.random_state) if data is None else int(data["seed"]),
            data=data,
            parameters=lasting(estimator),
            versions=header["versions"],
            spec=InputSpec(layout, None if names is None else np.array(names, dtype=object)),
            scaling=Scaling(fitted["scaling"], *scale),
            pca=pca,
            sampler=sampler_from_tensors(tensors, config.latent_dim, model.q),
            classes=classes,
        )


PCA_TENSORS = ("mean", "components", "variances")
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
    sampler.load_state_dict({n: t.clone() for n, t in state.items()}, assign=True)
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
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ParameterError(
            f"device={asked!r} is not available on this machine; use 'auto' or 'cpu'."
        ) from error
    return device

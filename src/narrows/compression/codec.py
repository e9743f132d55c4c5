"""The codec: learns to compress, writes files, and decodes them to the same bits everywhere."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from narrows.compression.api import Packs
from narrows.compression.codec_setup import (
    WHOLE,
    CodecConfig,
    Prepared,
    build_coder,
    build_objective,
    choose,
    pca_coder,
    prepare_blocks,
    prepare_images,
    prepare_whole,
)
from narrows.compression.coder import Coder
from narrows.compression.format.decoder import Model
from narrows.compression.format.model_payload import Payload
from narrows.compression.quantize_weights import freeze, measured, some_rows
from narrows.estimators.layout import Layout
from narrows.estimators.learner import Learner
from narrows.estimators.model_file import RUN, Contents
from narrows.estimators.parameters import AXES, WIDEST, parameter
from narrows.estimators.setup import Training, new_state, pick_device, refuse_changes, seed_of
from narrows.estimators.summary import given_parameters, versions
from narrows.estimators.validation import validate_X
from narrows.exceptions import ParameterError
from narrows.io.photographs import Images
from narrows.training.process_group import broadcast

Array = NDArray[Any]
PATCHES = 16  # in a step
SHOWN = 32  # samples that stand for all in a checkpoint


@dataclass(kw_only=True, eq=False, repr=False)
class Codec(Packs, Learner, BaseEstimator):
    """min over f, g of E [ Σ (x − g(z))² / 2σ² − log p(z) ], z = round(f(x)): data as small files.

    Small images, signals and rows of tables are coded whole, larger images block by block with a
    look at the blocks around. What is decoded is made of whole numbers only: a file gives the same
    bits on every machine. A code starts at PCA with one step for all components.

    Source: Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017;
    Ballé, Johnston & Minnen, "Integer networks for data compression with latent-variable models",
    ICLR 2019.

    Parameters
    ----------
    The fields below, and how training goes: ``narrows.estimators.parameters.RunParameters``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from narrows import Codec
    >>> X = load_digits().images.astype("uint8")
    >>> codec = Codec(max_epochs=3, random_state=0).fit(X)
    >>> data = codec.compress(X)
    >>> len(data) < X.size / 4
    True
    >>> codec.decompress(data).shape
    (1797, 8, 8)
    >>> bool((codec.decompress(codec.compress(X, mode="lossless")) == X).all())
    True
    """

    _in_file: ClassVar = frozenset({"choices", "levels", "layout", *RUN})
    _errors: ClassVar = ("bits_per_number", "mse")
    _usual_rate: ClassVar[float] = 4e-3

    rate: float | str = parameter(
        "auto",
        "Bits for each number of X (each pixel of a grey image) that the middle level aims at. "
        "auto: as many as leave 2 % of the variance to PCA.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )
    levels: int = parameter(
        7, "Qualities that one model serves, each 3 dB from the next.", kind=int, low=1, high=16
    )
    quantizer: str = parameter(
        "noise",
        "noise: codes of any size, learned with uniform noise; fsq: a fixed number of values.",
        choices=("noise", "fsq"),
    )
    n_values: int = parameter(
        7, "With fsq, the values that a number of the code may have.", kind=int, low=3, high=255
    )
    prior: str = parameter(
        "conditional",
        "conditional: a number of the code is told from those before it; factorised: each number "
        "has a table of its own, which is faster.",
        choices=("conditional", "factorised"),
    )
    latent_dim: int | str = parameter(
        "auto",
        "Numbers in the code of a cell. auto: the PCA components that are worth half a bit "
        "or more at the finest level.",
        kind=int,
        low=1,
        high=WIDEST,
        auto=True,
    )
    hidden_layer_sizes: Any = parameter(
        "auto",
        "Widths of the encoder's layers; the decoder mirrors them. auto: for samples coded whole "
        "about twice the input (64 to 512), then half of it; for blocks 96,96.",
        kind=tuple,
        low=1,
        high=4096,
        auto=True,
    )
    block: Any = parameter(
        "auto",
        "Sides of the blocks that large images are cut into, as 8,8. auto: samples of up to 4,096 "
        "numbers are coded whole, larger images in blocks of 8,8.",
        kind=tuple,
        low=1,
        high=256,
        auto=True,
    )
    context: Any = parameter(
        "auto",
        "Also learn a network that expects each pixel from those before it, which lossless coding "
        "gains most from. auto: for images of 8 bits that are coded whole.",
        choices=("auto", True, False),
    )
    axes: str | None = parameter(
        None,
        "What the axes of a sample mean. None: HW for three dimensions of data, CHW for four.",
        choices=AXES,
    )
    input_shape: ClassVar[None] = None
    in_memory: ClassVar[str] = "auto"

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Learn to compress data like X.

        Parameters
        ----------
        X : array, or str, Path or list for images
            A table (n, d), signals (n, C, L), images (n, H, W) or (n, C, H, W); or a folder of
            images, or a list of images (H, W) or (H, W, 3) of any sizes.
        y : ignored
        X_val : like X, optional
            Data to validate on, in place of a share of X.

        Raises
        ------
        InputError, FileError
            X cannot be learned from.
        ParameterError
            A parameter is out of range.
        """
        self._fit(X, X_val)
        return self

    def check_parameters(self) -> None:
        """Refuse what cannot be."""
        super().check_parameters()
        if not isinstance(self.block, str) and len(self.block) != 2:
            raise ParameterError(f"block is two sides, as (8, 8). Got {self.block!r} instead.")
        if self.quantizer == "fsq" and self.n_values % 2 == 0:
            raise ParameterError(
                f"n_values must be odd, so that 0 is among the values. Got {self.n_values} instead."
            )

    def _take(self, X: Any, *, reset: bool) -> Any:
        if isinstance(X, str | Path | list) and not _is_rows(X):
            return Images(X)
        return validate_X(self, X, reset=reset)

    def _prepare(self, rows: Any, held: Any) -> Training:
        seed, device = broadcast(seed_of(self.random_state)), pick_device(self.device)
        event, axes = None, None
        if not isinstance(rows, Images):
            axes = self.layout_.axes
            event = None if self._blocks(rows.shape[1:]) else self.layout_.user_shape
        prepared = self._prepared(rows, held, event is not None, seed, device)
        self.choices_, self._pca = choose(self, prepared, event, axes, seed)
        coder = build_coder(self.choices_, torch.Generator().manual_seed(seed))
        coder.start(self._pca)
        objective = build_objective(self.choices_, torch.Generator().manual_seed(seed)).to(device)
        return self._training(coder.to(device), objective, new_state(seed, device), prepared, seed)

    def _blocks(self, shape: tuple[int, ...]) -> bool:
        """Whether rows of this shape are cut into blocks: images that are large, or when asked."""
        if len(shape) < 3:
            return False
        return not isinstance(self.block, str) or math.prod(shape) > WHOLE

    def _prepared(
        self, rows: Any, held: Any, whole: bool, seed: int, device: torch.device
    ) -> Prepared:
        if isinstance(rows, Images):
            return prepare_images(rows, held, self, seed, device)
        return (prepare_whole if whole else prepare_blocks)(rows, held, self, seed, device)

    def _training(
        self, coder: Coder, objective: Any, state: Any, prepared: Prepared, seed: int
    ) -> Training:
        self._shown = next(prepared.validation.in_order(SHOWN))
        self.__dict__.pop(
            "payload_", None
        )  # of a training before, which a checkpoint must not hold
        rows, validation = prepared.rows, prepared.validation
        return Training(coder, objective, state, rows, validation, seed)  # type: ignore[arg-type]

    def _batch(self, n_rows: int) -> int:
        """Patches are many cells each."""
        return super()._batch(n_rows) if self.choices_.event is not None else PATCHES

    def _resume(self, rows: Any, held: Any) -> Training:
        refuse_changes(self, self._fitted_with)
        seed, device = self._seed, next(self.model_.parameters()).device
        choices = self.choices_
        prepared = self._prepared(rows, held, choices.event is not None, seed, device)
        self._pca = choose(self, prepared, choices.event, choices.axes, seed)[1]
        state = self._state or new_state(seed, device)
        return self._training(self.model_, self.objective_, state, prepared, seed)

    # ------------------------------------------------------------------ what was learned

    def _measure(self, training: Training) -> dict[str, float | None]:
        """Freeze the decoder, and measure each level with it on the validation rows."""
        coder: Coder = training.model  # type: ignore[assignment]
        rows = list(some_rows(training.rows, training.seed))
        payload = freeze(coder, self.choices_, 0, rows, training.objective)
        found = measured(coder, Model(payload), training.validation)
        plain, plain_choices = pca_coder(self.choices_, self._pca)
        plain.to(coder.log_gain.device)
        beside = measured(plain, Model(freeze(plain, plain_choices, 0, rows)), training.validation)
        self.levels_ = [
            {**own, **{f"pca_{name}": value for name, value in other.items()}}
            for own, other in zip(found, beside, strict=True)
        ]
        level = self._default_level()
        self.payload_ = Payload(payload.arrays, {**payload.structure, "level": level})
        return {name: self.levels_[level][name] for name in self._errors}

    def _default_level(self) -> int:
        """The level whose rate is nearest to the one asked for; the middle one without a wish."""
        if isinstance(self.rate, str):
            return len(self.levels_) // 2
        asked = float(self.rate)
        away = [abs(np.log(max(found["bits_per_number"], 1e-9) / asked)) for found in self.levels_]
        return int(np.argmin(away))

    @property
    def decoder_(self) -> Model:
        """The exact decoder, with its tables: what a file is decoded by."""
        check_is_fitted(self, "payload_")
        made: Model | None = self.__dict__.get("_decoder")
        if made is None or made.payload is not self.payload_:
            made = self._decoder = Model(self.payload_)
        return made

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON."""
        check_is_fitted(self, "model_")
        rows, choices = self.rows_, self.choices_
        return {
            "model": type(self).__name__,
            "parameters": given_parameters(self),
            "cell": list(choices.event or (choices.channels, *choices.block)),
            "latent_dim": choices.latent_dim,
            "parts": {**self.model_.describe(), "R": "rate"},
            "n_parameters": self.n_parameters_,
            "id": self.payload_.id,
            "payload_bytes": len(self.payload_.data),
            "levels": [_in_words(level) for level in self.levels_],
            "training": {
                "rows": rows["given"],
                "validation_rows": rows["validation"],
                "epochs": self.n_iter_,
                "best_epoch": self.best_epoch_,
                "seconds": round(self.fit_seconds_, 3),
                **self.validation_errors_,
                "stop_reason": self.stop_reason_,
            },
            "versions": getattr(self, "versions_", None) or versions(),
        }

    # ------------------------------------------------------------------ files

    def __getstate__(self) -> dict[str, Any]:
        # what only training asks for may lie on a device, and the decoder follows from the payload
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("_pca", "_shown", "_decoder")}

    def _probe(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        block, channels = self.choices_.block, self.choices_.channels
        return torch.rand((2, channels, *block), generator=rng)

    @torch.no_grad()
    def _reply(self, x: Tensor) -> tuple[Tensor, ...]:
        coder = self.model_
        y = coder.latents(x.to(coder.log_gain.device))
        return y.flatten(1).cpu(), coder.answer(y).cpu()

    def _contents(self) -> Contents:
        if not hasattr(self, "payload_"):  # a checkpoint: training has not ended
            level = len(self.choices_.sigmas) // 2
            payload, levels = (
                freeze(self.model_, self.choices_, level, [self._shown], self.objective_),
                [],
            )
        else:
            payload, levels = self.payload_, self.levels_
        tensors = {f"model.{name}": t for name, t in self.model_.state_dict().items()}
        tensors |= {f"objective.{n}": t for n, t in self.objective_.state_dict().items()}
        tensors["payload"] = torch.from_numpy(np.frombuffer(payload.data, np.uint8).copy())
        layout = asdict(self.layout_) if hasattr(self, "layout_") else None
        return tensors, {"choices": asdict(self.choices_), "levels": levels, "layout": layout}

    def _restore(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
    ) -> None:
        if own is not None:
            raise ParameterError(f"{path} holds its own networks; load it without f and g.")
        self.choices_ = CodecConfig.from_json(header["fitted"]["choices"])
        self.levels_ = header["fitted"]["levels"]
        layout = header["fitted"]["layout"]
        if layout is not None:
            self.layout_ = Layout(**{**layout, "user_shape": tuple(layout["user_shape"])})
            self.input_shape_ = self.layout_.user_shape
            self.n_features_in_ = self.layout_.n_features
        coder = build_coder(self.choices_, None)
        state = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        coder.load_state_dict(state, assign=True)
        self.model_, self.objective_ = coder.eval(), build_objective(self.choices_, None)
        mine = {
            n.removeprefix("objective."): t for n, t in tensors.items() if n[:10] == "objective."
        }
        self.objective_.load_state_dict(mine, assign=True)
        self.payload_ = Payload.from_bytes(tensors["payload"].numpy().tobytes())
        Model(self.payload_)  # every nonsense in it is found now


def _in_words(level: dict[str, float]) -> str:
    own, pca = (
        f"{level[start + 'bits_per_number']:.4g} bits a number, mse {level[start + 'mse']:.4g}"
        for start in ("", "pca_")
    )
    return f"{own} (PCA {pca})"


def _is_rows(X: Any) -> bool:
    """Whether a list holds rows of numbers, not images or names of files."""
    return isinstance(X, list) and bool(X) and not isinstance(X[0], str | Path | np.ndarray)

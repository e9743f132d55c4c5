"""The denoiser of photographs: images of any size, with and without clean examples."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from narrows.denoising.denoiser_model import Restorer
from narrows.denoising.denoiser_setup import (
    LEVEL,
    DenoiserConfig,
    build,
    patches_of,
    psnr_of_patches,
)
from narrows.denoising.noise_level import is_level, noise_level
from narrows.denoising.tiling import clean_planes
from narrows.estimators.learner import Learner
from narrows.estimators.model_file import RUN, Contents
from narrows.estimators.parameters import parameter
from narrows.estimators.setup import Training, new_state, pick_device, refuse_changes, seed_of
from narrows.estimators.summary import given_parameters, versions
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Array, Images, as_stored, check_image
from narrows.training.patches import as_planes
from narrows.training.process_group import broadcast
from narrows.training.state import TrainState

SEVERAL = 4_000_000  # pixels up to which sides="auto" looks at an image from eight sides


def _plain(X: Any) -> Any:
    """An array, where X is one of another kind: a tensor, a PIL image."""
    other = hasattr(X, "__array__") or hasattr(X, "__array_interface__")
    return np.asarray(X) if other else X


@dataclass(kw_only=True, eq=False, repr=False)
class Denoiser(Learner, BaseEstimator):
    """min over f, g of E_x E_ε D(x, y − g(f(y, s))), y = x + ε: takes the noise from photographs.

    f and g are convolutions without biases, with skips around the code, so images may have any
    size. It learns from clean images, to which it adds noise; or, with ``noisy_targets``, from
    noisy ones alone, down to a single one, which it then cleans.

    Source: Mao, Shen & Yang, "Image restoration using very deep convolutional encoder-decoder
    networks with symmetric skip connections", NeurIPS 2016; Pang et al., "Recorrupted-to-
    recorrupted", CVPR 2021, for learning from noisy images.

    Parameters
    ----------
    The fields below, and how training goes: ``narrows.estimators.parameters.RunParameters``.

    Examples
    --------
    >>> import numpy as np
    >>> from narrows import Denoiser
    >>> rng = np.random.default_rng(0)
    >>> clean = np.kron(rng.integers(40, 200, (8, 8)), np.ones((8, 8)))
    >>> noisy = (clean + rng.normal(0, 20, clean.shape)).clip(0, 255).astype(np.uint8)
    >>> denoiser = Denoiser(noisy_targets=True, max_epochs=2, patch_size=16, random_state=0)
    >>> restored = denoiser.fit([noisy]).denoise(noisy)
    >>> bool(np.abs(restored - clean).mean() < np.abs(noisy - clean).mean())
    True
    """

    _in_file: ClassVar = frozenset({"choices", *RUN})
    _errors: ClassVar = ("psnr_noisy", "psnr")
    _usual_rate: ClassVar = 8.5e-3

    noisy_targets: bool = parameter(
        False, "Learn from noisy images alone; X holds them.", kind=bool
    )
    pairs: str = parameter(
        "auto",
        "With noisy_targets, how input and target are made of a noisy image. recorrupted: for "
        "white Gaussian noise that nothing clipped, of a level found in each image; halves: for "
        "any noise that is independent from pixel to pixel. auto: recorrupted, and halves for a "
        "single image or where noise was clipped at black or white.",
        choices=("auto", "recorrupted", "halves"),
    )
    noise: str = parameter(
        "white",
        "white: as strong everywhere; photon: its variance grows with brightness, as in "
        "photographs from a sensor, and the image is transformed to have white noise first.",
        choices=("white", "photon"),
    )
    noise_level: Any = parameter(
        "auto",
        "Standard deviation on the scale where white is 255: of what is added to clean images, a "
        "number or a range drawn from for each; with noisy_targets a number, that of their noise. "
        "auto: 0,55; found in each image.",
        kind="range",
        auto=True,
        low=0,
    )
    white: Any = parameter(
        "auto",
        "The value of white. auto: the largest of 8 or 16 bits; of floats 1, 255 or 65535, "
        "whichever an image's largest value goes with. Give 4095 for 12 bits kept in 16.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )
    channels: Any = parameter(
        "auto",
        "Widths of f's stages, each half the size of the one before, as 16,32,64,96, which is "
        "auto; for a single noisy image 16,32,48.",
        kind=tuple,
        low=1,
        high=4096,
        auto=True,
    )
    blocks: int = parameter(1, "Residual blocks in a stage.", kind=int, low=1, high=64)
    patch_size: int = parameter(
        64, "Side of the squares that are learned from, in pixels.", kind=int, low=16, high=512
    )
    distance: str = parameter(
        "auto",
        "D between the clean image and the answer. auto: mae; mse where targets are noisy.",
        choices=("auto", "mse", "mae", "huber"),
    )
    sides: Any = parameter(
        "auto",
        "Answer once, or with the mean over the image turned and mirrored in eight ways: better, "
        "and eight times the time. auto: 8 for images of up to 4 million pixels.",
        choices=("auto", 1, 8),
    )
    batch_size: int | str = parameter(16, "Patches in a step.", kind=int, low=1, auto=True)
    learning_rate: float | str = parameter(
        "auto",
        "Largest step size of AdamW; warmed up, then lowered to zero along a line. auto: 0.003 for "
        "batches of 16, as the root of their size.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )

    def check_parameters(self) -> None:
        """Refuse what cannot be."""
        super().check_parameters()
        several = isinstance(self.noise_level, tuple | list)
        found = isinstance(self.noise_level, str)
        if self.noisy_targets and self.noise == "photon" and not found:
            raise ParameterError("noise='photon' has no single level: leave noise_level='auto'.")
        if self.noisy_targets and several:
            raise ParameterError(
                f"With noisy_targets, noise_level is one number or 'auto'. Got {self.noise_level}."
            )
        if self.noisy_targets and self.distance not in ("auto", "mse"):
            raise ParameterError(
                f"distance={self.distance!r} does not find the clean image behind noisy targets; "
                "only the squared distance does: leave distance='auto'."
            )

    def fit(self, X: Any, y: Any = None, *, X_val: Any = None) -> Self:
        """Learn to take noise from images like X.

        Parameters
        ----------
        X : str, Path, array, or a list of these
            A folder of images, or images (H, W) or (H, W, 3) of any sizes: clean ones, or with
            ``noisy_targets`` noisy ones. One is enough then.
        y : ignored
        X_val : like X, optional
            Images to validate on, in place of a share of X.

        Raises
        ------
        InputError, FileError
            X holds no images, or one of them cannot be read.
        ParameterError
            A parameter is out of range.
        """
        self._fit(X, X_val)
        if self.best_epoch_ == 0 < self.max_epochs:
            warnings.warn(
                f"Nothing was learned ({self.stop_reason_}), so images stay as they are; give "
                "more time (max_time), or more epochs.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _take(self, X: Any, *, reset: bool) -> Images:
        images = self._images(X)
        if images.mixed and self.noisy_targets:
            raise InputError(
                "X mixes grey and colour images, whose noises are not alike; with noisy_targets "
                "give images of one kind."
            )
        return images

    def _images(self, X: Any) -> Images:
        return Images(X, None if isinstance(self.white, str) else float(self.white))

    def _prepare(self, rows: Images, held: Images | None) -> Training:
        alone = len(rows) == 1 and self.noisy_targets
        widths = (16, 32, 48) if alone else (16, 32, 64, 96)
        asked = self.channels
        distance = "mse" if self.noisy_targets else "mae"
        pairs = "halves" if alone or rows.clipped else "recorrupted"
        self.choices_ = DenoiserConfig(
            channels=rows.channels,
            widths=widths if isinstance(asked, str) else tuple(int(w) for w in asked),
            blocks=int(self.blocks),
            distance=distance if self.distance == "auto" else self.distance,
            pairs=pairs if self.pairs == "auto" else self.pairs,
        )
        seed, device = broadcast(seed_of(self.random_state)), pick_device(self.device)
        model, objective = build(self, torch.Generator().manual_seed(seed))
        state = new_state(seed, device)
        return self._training(model.to(device), objective.to(device), state, rows, held, seed)

    def _resume(self, rows: Images, held: Images | None) -> Training:
        refuse_changes(self, self._fitted_with)
        seed = self._seed
        state = self._state or new_state(seed, self._device)
        return self._training(self.model_, self.objective_, state, rows, held, seed)

    def _training(
        self,
        model: Restorer,
        objective: Any,
        state: TrainState,
        rows: Images,
        held: Images | None,
        seed: int,
    ) -> Training:
        for name, images in (("X", rows), ("X_val", held)):
            if images is not None and images.channels > self.choices_.channels:
                raise InputError(
                    f"{name} holds colour images, but the model is one of grey ones; give grey "
                    "ones, or fit anew."
                )
        patches, validation = patches_of(self, rows, held, seed, state.rng.device)
        return Training(model, objective, state, patches, validation, seed)  # type: ignore[arg-type]

    @property
    def _device(self) -> torch.device:
        device: torch.device = next(self.model_.parameters()).device
        return device

    def _measure(self, training: Training) -> dict[str, float | None]:
        """PSNR on the validation patches, before and after; nothing without clean images."""
        if self.noisy_targets:
            return dict.fromkeys(self._errors)
        rows: Any = training.validation
        return dict(
            zip(self._errors, psnr_of_patches(self.model_, rows, training.seed), strict=True)
        )

    def denoise(self, X: Any, noise_level: float | None = None) -> Any:
        """X without its noise.

        Parameters
        ----------
        X : str, Path, array, or a list of these
            An image (H, W) or (H, W, 3), several of them, or files.
        noise_level : float, optional
            The noise's standard deviation, white being 255; found in each image unless given.

        Returns
        -------
        array like X for an image or an array of images, else a list of arrays; each has its image's
        shape and dtype (what is bool comes back as uint8)

        Raises
        ------
        InputError
            What is given is no image, or is grey where the model learned from noisy colour images.
            (One fitted on grey images cleans the channels of a colour image one by one.)
        ParameterError
            noise_level is below 0, or is given where noise is "photon".
        """
        check_is_fitted(self, "model_")
        if noise_level is not None and not is_level(noise_level):
            raise ParameterError(
                f"noise_level must be a number from 0. Got {noise_level!r} instead."
            )
        if noise_level is not None and self.noise == "photon":
            raise ParameterError(
                "noise='photon' is noise of no single level: leave noise_level out."
            )
        X = _plain(X)
        images = self._images(X)
        self.model_.eval()
        cleaned = [self._clean(images, i, noise_level) for i in range(len(images))]
        if isinstance(X, np.ndarray):
            alone = len(cleaned) == 1 and cleaned[0].ndim == X.ndim
            return cleaned[0] if alone else np.stack(cleaned).reshape(X.shape)
        single = isinstance(X, str | Path) and not Path(X).is_dir()
        return cleaned[0] if single else cleaned

    def _clean(self, images: Images, i: int, level: float | None) -> Array:
        n_channels, white = self.choices_.channels, images.whites[i]
        raw = images.raw(i)
        planes = as_planes(check_image(raw, images.name(i))).to(self._device).float() / white
        if n_channels == 3 and len(planes) == 1:
            if self.noisy_targets:
                raise InputError(
                    f"{images.name(i)} is grey, but the model has only seen the noise of colour "
                    "images; fit one on grey ones."
                )
            planes = planes.expand(3, -1, -1)  # clean colour images were shown to it in grey, too
        parts = planes.split(n_channels)  # a model of grey images sees the channels one by one
        each = [self._restore_planes(part, level) for part in parts]
        return as_stored(torch.cat(each) * white, raw)

    def _restore_planes(self, planes: Tensor, level: float | None) -> Tensor:
        sides = self.sides
        if isinstance(sides, str):
            sides = 8 if planes[0].numel() <= SEVERAL else 1
        if level is None and self.noisy_targets and not isinstance(self.noise_level, str):
            level = float(self.noise_level)
        s = None if level is None else level / 255
        return clean_planes(self.model_, planes, s, self.noise == "photon", sides)

    def estimate_noise(self, X: Any) -> Any:
        """The standard deviation of the noise in X, white being 255.

        See ``narrows.denoising.noise_level.noise_level``; needs no fit.

        Parameters
        ----------
        X : as in ``denoise``

        Returns
        -------
        float for one image, else a list of floats
        """
        X = _plain(X)
        images = self._images(X)
        found = []
        for i in range(len(images)):
            planes = as_planes(images[i]).float()
            found.append(255 * noise_level(planes) / images.whites[i])
        one = isinstance(X, np.ndarray | str | Path) and len(found) == 1
        return found[0] if one else found

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON."""
        check_is_fitted(self, "model_")
        rows = self.rows_
        return {
            "model": type(self).__name__,
            "parameters": given_parameters(self),
            "channels": self.choices_.channels,
            "distance": self.choices_.distance,
            "parts": {**self.model_.describe(), "R": "none"},
            "n_parameters": self.n_parameters_,
            "training": {
                "images": rows["given"],
                "validation_patches": rows["validation"],
                "epochs": self.n_iter_,
                "best_epoch": self.best_epoch_,
                "seconds": round(self.fit_seconds_, 3),
                **self.validation_errors_,
                "stop_reason": self.stop_reason_,
            },
            "versions": getattr(self, "versions_", None) or versions(),
        }

    def _probe(self) -> Tensor:
        rng = torch.Generator().manual_seed(0)
        return torch.rand((1, self.choices_.channels, 32, 32), generator=rng)

    @torch.no_grad()
    def _reply(self, x: Tensor) -> tuple[Tensor, ...]:
        side = self.model_.cell * -(-32 // self.model_.cell)
        x = torch.nn.functional.interpolate(x, (side, side))
        return (self.model_.restore(x.to(self._device), LEVEL).cpu(),)

    def _contents(self) -> Contents:
        tensors = {f"model.{name}": t for name, t in self.model_.state_dict().items()}
        return tensors, {"choices": asdict(self.choices_)}

    def _restore(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, Any], own: Any
    ) -> None:
        if own is not None:
            raise ParameterError(f"{path} holds its own networks; load it without f and g.")
        self.choices_ = DenoiserConfig.from_json(header["fitted"]["choices"])
        with torch.device("meta"):  # a skeleton: nothing is allocated before all shapes agree
            model, self.objective_ = build(self, None)
        state = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        model.load_state_dict(state, assign=True)
        self.model_ = model.eval()

"""The Denoiser: removes noise from photographs of any size, with or without clean examples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from torch import Generator, Tensor

from narrows.denoising import noise_pairs
from narrows.denoising.denoiser_model import DenoiserModel, PSNRObjective, size_multiple, unet
from narrows.denoising.noise_level import AnscombeTransform, estimate_noise_level, fit_anscombe
from narrows.estimators.base import Learner
from narrows.estimators.build import Networks
from narrows.estimators.fit_and_resume import Usual
from narrows.estimators.fit_setup import (
    FitData,
    Training,
    multiplies_bfloat16,
    new_train_state,
    start_history,
)
from narrows.estimators.fitted_state import (
    FittedState,
    History,
    load_module,
    pick_device,
    refuse_own_networks,
)
from narrows.estimators.model_file import versions
from narrows.estimators.parameters import (
    FIT,
    as_ints,
    lasting,
    parameter,
    refuse_changes,
    rules_of,
    seed_of,
    stored,
)
from narrows.estimators.reconstruction import checked_answer
from narrows.estimators.summary import given_parameters, run_summary
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Array, Images, as_stored, check_image
from narrows.parts.likelihoods.continuous import LIKELIHOODS
from narrows.training.batches import Rows
from narrows.training.patches import Patches, as_planes
from narrows.training.process_group import Group
from narrows.training.train_state import TrainState

MAX_PIXELS_FOR_8_VIEWS = 4_000_000  # with sides="auto"; eight views take eight times as long
# Noisy images are scaled so that their noise has this level, so one kind of pair serves them all.
TRAINING_LEVEL = 25 / 255
MAX_STAGES = 10  # each halves the resolution: of ten, sides are multiples of 512
MIN_NOISE = 1e-3  # of an image's range: an image without noise must not be divided by 0
VALIDATION_PATCHES = 64, 256  # at least and at most, of 64 × 64 pixels; of larger ones fewer


@dataclass(frozen=True)
class DenoiserConfig:
    """Every "auto" of a Denoiser, resolved; a model file keeps it."""

    channels: int = stored(choices=(1, 3))  # of the images
    widths: tuple[int, ...] = stored(kind=tuple, low=1, high=4096, most=MAX_STAGES)
    blocks: int = stored(kind=int, low=1, high=64)
    distance: str = stored(choices=("mse", "mae", "huber"))
    # used with noisy targets only
    pairs: str = stored("recorrupted", choices=("recorrupted", "halves"))
    architecture: str = stored("whole", choices=("whole",))
    precision: str = stored("float32", choices=("float32",))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DenoiserConfig:
        """From the header of a model file."""
        return cls(**{**data, "widths": tuple(data["widths"])})


@dataclass(frozen=True)
class _StabilizedImages:
    """Those of the images with these indices, each after its transform if it has one."""

    images: Images
    indices: list[int]
    transforms: Sequence[AnscombeTransform | None]

    def __getitem__(self, i: int) -> Array:
        image: Array = self.images[self.indices[i]]
        transform = self.transforms[i]
        if transform is None:
            return image
        return np.asarray(transform.forward(torch.from_numpy(image.astype(np.float32))))


ERRORS = ("psnr_noisy", "psnr")  # of the validation patches, in dB


@dataclass(frozen=True, kw_only=True)
class DenoiserState(FittedState):
    """What a Denoiser learns."""

    model: DenoiserModel
    config: DenoiserConfig


@dataclass(kw_only=True, eq=False, repr=False)
class Denoiser(Learner[DenoiserState], BaseEstimator):
    """min over f, g of E_x E_ε D(x, y − g(f(y, s))), y = x + ε: removes noise from photographs.

    f and g are a U-Net of convolutions without biases, so images may have any size. It learns
    from clean images, to which it adds noise; or, with ``noisy_targets``, from noisy images only.
    One noisy image is enough.

    Source: Mao, Shen & Yang, "Image restoration using very deep convolutional encoder-decoder
    networks with symmetric skip connections", NeurIPS 2016; Pang et al., "Recorrupted-to-
    recorrupted", CVPR 2021, for learning from noisy images.

    Parameters
    ----------
    The fields below, and those of training: ``narrows.estimators.parameters.RunParameters``.

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

    _file_keys: ClassVar = {**FittedState.keys, "choices": rules_of(DenoiserConfig)}
    _usual: ClassVar = Usual(learning_rate=8.5e-3, weight_decay=0.01)

    noisy_targets: bool = parameter(
        False, "Learn from noisy images only; X contains them.", kind=bool
    )
    pairs: str = parameter(
        "auto",
        "With noisy_targets, how input and target are made from a noisy image. recorrupted "
        "(Recorrupted-to-Recorrupted): for white Gaussian noise that was not clipped, its level "
        "estimated in each image; halves (Zero-shot Noise2Noise): for any noise that is "
        "independent from pixel to pixel. auto: recorrupted; halves for a single image or if "
        "noise was clipped at black or white.",
        choices=("auto", "recorrupted", "halves"),
    )
    noise: str = parameter(
        "white",
        "white: equally strong everywhere; photon: its variance grows with brightness, as in "
        "photographs from a sensor, and images are first transformed to have white noise "
        "(Anscombe transform).",
        choices=("white", "photon"),
    )
    noise_level: float | tuple[float, float] | str = parameter(
        "auto",
        "Standard deviation of the noise, white being 255. Of noise added to clean images: a "
        "number, or a range from which each image's level is drawn. With noisy_targets: a number, "
        "the level of their noise. auto: 0,55; with noisy_targets estimated in each image.",
        kind="range",
        auto=True,
        low=0,
    )
    white: float | str = parameter(
        "auto",
        "The value of white. auto: 255 or 65535 for 8 or 16 bits; for floats the first of 1, 255 "
        "and 65535 whose double 95 % of an image's values do not exceed; a warning says where "
        "it is a guess. Give 4095 for 12 bits stored in 16.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )
    channels: tuple[int, ...] | str = parameter(
        "auto",
        "Widths of f's stages; each stage has half the resolution of the one before. auto: "
        "16,32,64,96; for a single noisy image 16,32,48.",
        kind=tuple,
        low=1,
        high=4096,
        most=MAX_STAGES,
        auto=True,
    )
    blocks: int = parameter(1, "Residual blocks in a stage.", kind=int, low=1, high=64)
    patch_size: int = parameter(
        64, "Side of the square patches used in training, in pixels.", kind=int, low=16, high=512
    )
    distance: str = parameter(
        "auto",
        "D between the target and the output. auto: mae; with noisy_targets mse.",
        choices=("auto", "mse", "mae", "huber"),
    )
    sides: int | str = parameter(
        "auto",
        "1: denoise once. 8: mean over the image's eight rotations and mirror images, which is "
        "better and takes eight times as long. auto: 8 for images of up to 4 million pixels.",
        choices=("auto", 1, 8),
        scope=FIT,
    )
    precision: str = parameter(
        "auto",
        "Precision of the products of denoise; training has float32. auto: for images of 8 bits "
        "bfloat16 on hardware made for it (AMX, AVX512-BF16, CUDA), about 2.5 times as fast; "
        "pixels differed by at most 2 of 255 in photographs. Else float32.",
        choices=("auto", "float32", "bfloat16"),
        scope=FIT,
    )
    batch_size: int | str = parameter(
        16, "Patches in a step.", kind=int, low=1, auto=True, scope=FIT
    )
    learning_rate: float | str = parameter(
        "auto",
        "Largest step size of AdamW; warmed up, then lowered linearly to zero. auto: 0.003 for "
        "batches of 16, proportional to the square root of their size.",
        kind=float,
        low=0,
        open=True,
        auto=True,
        scope=FIT,
    )

    def check_parameters(self) -> None:
        """Raise ParameterError if a parameter is out of range or contradicts another one."""
        super().check_parameters()
        if not self.noisy_targets:
            return
        if self.noise == "photon" and not isinstance(self.noise_level, str):
            raise ParameterError(
                f"noise_level={self.noise_level} with noise='photon': photon noise has no single "
                "level; leave noise_level='auto'."
            )
        if isinstance(self.noise_level, tuple | list):
            raise ParameterError(
                f"noise_level={self.noise_level} with noisy_targets=True; give one number or "
                "'auto'."
            )
        if self.distance not in ("auto", "mse"):
            raise ParameterError(
                f"distance={self.distance!r} with noisy_targets=True: only the squared distance "
                "leads to the clean image; leave distance='auto'."
            )

    def fit(self, X: object, y: object = None, *, X_val: object = None) -> Self:
        """Learn to remove noise from images like X.

        Parameters
        ----------
        X : str, Path, array, or a list of these
            A folder of images, or images (H, W) or (H, W, 3) of any sizes: clean ones, or with
            ``noisy_targets`` noisy ones, of which one is enough.
        y : ignored
        X_val : like X, optional
            Images to validate on; without them a share of X is held out.

        Raises
        ------
        InputError, FileError
            X contains no images, or one of them cannot be read.
        ParameterError
            A parameter is out of range.
        """
        self._fit(X, X_val)
        if self.best_epoch_ == 0 != self.max_epochs:
            warnings.warn(
                f"Nothing was learned ({self.stop_reason_}), so denoise returns images unchanged; "
                "give more time (max_time) or more epochs (max_epochs).",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _validate_fit(
        self, X: object, X_val: object, y: object, fitted: DenoiserState | None
    ) -> FitData[Images]:
        rows = self._images(X)
        held = None if X_val is None else self._images(X_val)
        if self.noisy_targets and (rows.mixed or (held is not None and held.mixed)):
            raise InputError(
                "X mixes grey and colour images, whose noise differs; with noisy_targets=True give "
                "either grey or colour images."
            )
        return FitData(rows, held)

    def _images(self, X: object) -> Images:
        return Images(X, None if isinstance(self.white, str) else float(self.white))

    def _setup(self, data: FitData[Images], group: Group) -> Training[DenoiserState]:
        alone = len(data.rows) == 1 and self.noisy_targets
        widths = (16, 32, 48) if alone else (16, 32, 64, 96)
        distance = "mse" if self.noisy_targets else "mae"
        pairs = "halves" if alone or data.rows.clipped else "recorrupted"
        config = DenoiserConfig(
            channels=data.rows.channels,
            widths=widths if isinstance(self.channels, str) else as_ints(self.channels),
            blocks=int(self.blocks),
            distance=distance if self.distance == "auto" else self.distance,
            pairs=pairs if self.pairs == "auto" else self.pairs,
        )
        seed = group.broadcast(seed_of(self.random_state))
        device = pick_device(self.device, group)
        start = DenoiserState(
            model=self._build(config, torch.Generator().manual_seed(seed)),
            objective=PSNRObjective(),
            config=config,
            history=start_history(0, 0, ERRORS),
            seed=seed,
            parameters=lasting(self),
        )
        return self._training(start.to(device), data, new_train_state(seed, device, group))

    def _resume(
        self, fitted: DenoiserState, data: FitData[Images], group: Group
    ) -> Training[DenoiserState]:
        refuse_changes(self, fitted.parameters)
        start = replace(fitted, versions=None, parameters=lasting(self))
        device = next(start.model.parameters()).device
        state = start.train_state or new_train_state(start.seed, device, group)
        return self._training(start, data, state)

    def _training(
        self, start: DenoiserState, data: FitData[Images], state: TrainState
    ) -> Training[DenoiserState]:
        for name, images in (("X", data.rows), ("X_val", data.held)):
            if images is not None and images.channels > start.config.channels:
                raise InputError(
                    f"{name} holds colour images, but this model is for grey ones; give grey "
                    "images or fit a new model."
                )
        patches, validation = self._split_patches(data, start, state.rng.device)
        history = start_history(len(data.rows), len(validation), ERRORS)
        return Training(replace(start, history=history), state, patches, validation)

    def _build(self, config: DenoiserConfig, rng: Generator | None) -> DenoiserModel:
        """The model with weights drawn from ``rng`` (None: not drawn)."""
        f, g = unet(config.channels, config.widths, config.blocks, rng)
        c: noise_pairs.NoisePairs
        if not self.noisy_targets:
            level = (0.0, 55.0) if isinstance(self.noise_level, str) else self.noise_level
            low, high = level if isinstance(level, tuple | list) else (level, level)
            c = noise_pairs.AddedNoise(float(low) / 255, float(high) / 255)
        elif config.pairs == "halves":
            c = noise_pairs.ZeroShotNoise2Noise(TRAINING_LEVEL)
        else:
            c = noise_pairs.RecorruptedToRecorrupted(TRAINING_LEVEL)
        return DenoiserModel(f, g, LIKELIHOODS[config.distance](), c)

    def _split_patches(
        self, data: FitData[Images], start: DenoiserState, device: torch.device
    ) -> tuple[Patches, Rows]:
        """Random patches to learn from, and fixed ones to validate on.

        Whole images are held out, at least one of two or more; a single image is both.
        """
        images, held, seed, config = data.rows, data.held, start.seed, start.config
        n, share = len(images), self.validation_fraction
        order = np.random.default_rng(seed).permutation(n).tolist()
        n_held = 0 if held is not None or not share or n == 1 else max(1, round(n * share))
        kept = sorted(order[n_held:])
        patches = self._patches(images, kept, config, device)
        if held is not None:
            validation = self._patches(held, list(range(len(held))), config, device)
        else:
            validation = self._patches(images, sorted(order[:n_held]) or kept, config, device)
        least, most = VALIDATION_PATCHES
        n_patches = min(most, max(least, len(patches) // 16))
        n_patches = n_patches * 64**2 // max(64, patches.side) ** 2
        return patches, validation.fixed(max(1, n_patches), seed)

    def _patches(
        self, images: Images, indices: list[int], config: DenoiserConfig, device: torch.device
    ) -> Patches:
        """Patches of some of the images, scaled as the network is trained on them."""
        whites, transforms = zip(*(self._scale(images, i) for i in indices), strict=True)
        # of a pixel in memory: torch has no 16-bit integers, and a transform gives float32
        narrow = images.dtype == np.uint8 and not (self.noisy_targets and self.noise == "photon")
        multiple = size_multiple(config.widths)
        if self.noisy_targets and config.pairs == "halves":
            multiple *= 2  # the network gets images of half the size
        return Patches(
            images=_StabilizedImages(images, indices, transforms),
            sizes=[images.sizes[i] for i in indices],
            whites=whites,
            side=-(-int(self.patch_size) // multiple) * multiple,
            channels=config.channels,
            nbytes=images.pixels * len(indices) // len(images) * (1 if narrow else 4),
            device=device,
        )

    def _scale(self, images: Images, i: int) -> tuple[float, AnscombeTransform | None]:
        """What image i is divided by in training, and the transform that it gets before, if any.

        White becomes 1 in clean images; in noisy ones the noise gets the level TRAINING_LEVEL.
        """
        white = images.whites[i]
        if not self.noisy_targets:
            return white, None
        image = images[i]  # once: it may have to be decoded
        transform = fit_anscombe(as_planes(image)) if self.noise == "photon" else None
        if transform is not None:
            return 1.0 / TRAINING_LEVEL, transform
        if isinstance(self.noise_level, str | tuple):  # check_parameters refuses a range here
            level = estimate_noise_level(as_planes(image))
        else:
            level = white * float(self.noise_level) / 255
        low, high = np.quantile(image, (0.001, 0.999))  # not by one extreme value
        spread = float(high - low) or float(image.max() - image.min())
        return max(level, MIN_NOISE * spread or 1.0) / TRAINING_LEVEL, None

    @property
    def _device(self) -> torch.device:
        return next(self.state_.model.parameters()).device

    def _finalize(
        self, training: Training[DenoiserState], history: History, group: Group
    ) -> DenoiserState:
        """With the PSNR of the validation patches, before and after; None without clean images."""
        start, rows = training.start, training.validation
        if not self.noisy_targets:
            assert isinstance(rows, Rows)
            psnr = start.model.mean_psnr(rows, start.seed)
            history = replace(history, errors=dict(zip(ERRORS, psnr, strict=True)))
        return super()._finalize(training, history, group)

    def denoise(self, X: object, noise_level: float | None = None) -> Any:
        """Remove the noise from X.

        Parameters
        ----------
        X : str, Path, array, or a list of these
            An image (H, W) or (H, W, 3), several of them, or files.
        noise_level : float, optional
            The noise's standard deviation, white being 255. Default: estimated in each image.

        Returns
        -------
        array like X for an image or an array of images, else a list of arrays
            Each image keeps its shape and dtype (bool becomes uint8).

        Raises
        ------
        InputError
            X contains something that is no image, or a grey image if the model learned from noisy
            colour images. (A model of grey images denoises the channels of colour one by one.)
        ParameterError
            noise_level is below 0, or is given although noise is "photon".
        """
        model = self.state_.model
        if noise_level is not None:
            number = isinstance(noise_level, int | float | np.number)
            if not number or isinstance(noise_level, bool) or not 0 <= noise_level < math.inf:
                raise ParameterError(
                    f"noise_level={noise_level!r}; give a number of at least 0, the noise's "
                    "standard deviation where white is 255."
                )
            if self.noise == "photon":
                raise ParameterError(
                    f"noise_level={noise_level} with noise='photon': photon noise has no single "
                    "level; leave noise_level out."
                )
        images = self._images(X)
        model.eval()
        denoised = [self._denoise_image(images, i, noise_level) for i in range(len(images))]
        if isinstance(X, list | tuple):
            return denoised
        if isinstance(X, str | Path):
            return denoised if Path(X).is_dir() else denoised[0]
        X = np.asarray(X)  # a tensor, for example, or an image of Pillow's
        alone = len(denoised) == 1 and denoised[0].ndim == X.ndim
        return denoised[0] if alone else np.stack(denoised).reshape(X.shape)

    def _denoise_image(self, images: Images, i: int, level: float | None) -> Array:
        n_channels, white = self.state_.config.channels, images.whites[i]
        raw = images.raw(i)
        planes = as_planes(check_image(raw, images.name(i))).to(self._device).float() / white
        if n_channels == 3 and len(planes) == 1:
            if self.noisy_targets:
                raise InputError(
                    f"{images.name(i)} is grey, but the model was fitted on noisy colour images; "
                    "fit a model on grey images."
                )
            planes = planes.expand(3, -1, -1)  # training from clean images has grey ones too
        parts = planes.split(n_channels)  # a model of grey images takes the channels one by one
        precision = self.precision
        if precision == "auto":  # rounding would be seen in 16 bits and in floats, not in 8 bits
            coarse = raw.dtype.itemsize == 1 and multiplies_bfloat16(planes.device)
            precision = "bfloat16" if coarse else "float32"
        half = precision == "bfloat16"
        restored = torch.cat([self._denoise_planes(p, level, half) for p in parts]) * white
        return as_stored(checked_answer(restored), raw)

    def _denoise_planes(self, planes: Tensor, level: float | None, half: bool) -> Tensor:
        """Planes (C, H, W) with white = 1 without their noise; ``level`` is as in ``denoise``.

        ``half``: products in bfloat16.
        """
        views = self.sides
        if isinstance(views, str):
            views = 8 if planes[0].numel() <= MAX_PIXELS_FOR_8_VIEWS else 1

        def restore(image: Tensor, level: float) -> Tensor:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
                return self.state_.model.restore_image(image, level, views)

        transform = fit_anscombe(planes) if self.noise == "photon" else None
        if transform is not None:
            stabilized = transform.forward(planes)
            white = stabilized.max()  # as the noise has standard deviation 1, its level is 1/white
            scaled = stabilized / white
            restored = restore(scaled, float(1 / white))
            return transform.inverse(restored * white)
        if level is None and self.noisy_targets and not isinstance(self.noise_level, str | tuple):
            level = float(self.noise_level)
        s = estimate_noise_level(planes) if level is None else level / 255
        return restore(planes, s) if s > 0 else planes

    def estimate_noise(self, X: object) -> Any:
        """Estimate the standard deviation of the noise in X, white being 255; needs no fit.

        The method is described in ``narrows.denoising.noise_level.estimate_noise_level``.

        Parameters
        ----------
        X : as in ``denoise``

        Returns
        -------
        float for one image, else a list of floats
        """
        images = self._images(X)
        levels = [
            255 * estimate_noise_level(as_planes(images[i]).float()) / images.whites[i]
            for i in range(len(images))
        ]
        return levels[0] if len(levels) == 1 and not isinstance(X, list | tuple) else levels

    def info(self) -> dict[str, Any]:
        """Parameters, automatic choices and results of training, as plain JSON."""
        state, history = self.state_, self.state_.history
        return {
            "model": type(self).__name__,
            "parameters": given_parameters(self),
            "channels": state.config.channels,
            "distance": state.config.distance,
            "parts": {**state.model.describe(), "R": "none"},
            "n_parameters": self.n_parameters_,
            "training": {
                "images": history.rows["given"],
                "validation_patches": history.rows["validation"],
                **run_summary(history),
                **history.errors,
                "stop_reason": history.stop_reason,
            },
            "versions": state.versions or versions(),
        }

    @property
    def _probe_shape(self) -> tuple[int, ...]:
        return 1, self.state_.config.channels, 32, 32

    @torch.no_grad()
    def _probe_output(self, x: Tensor) -> tuple[Tensor, ...]:
        model = self.state_.model
        side = model.multiple * -(-32 // model.multiple)
        x = torch.nn.functional.interpolate(x, (side, side))
        return (model.restore(x.to(self._device), TRAINING_LEVEL).cpu(),)

    def _state_from_tensors(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> DenoiserState:
        refuse_own_networks(path, own)
        config = DenoiserConfig.from_json(header["fitted"]["choices"])
        with torch.device("meta"):  # no memory is allocated before all shapes agree
            model = self._build(config, None)
        load_module(model, "model.", tensors)
        return DenoiserState(
            model=model.eval(),
            objective=PSNRObjective(),
            config=config,
            history=History.from_json(header["fitted"]),
            seed=seed_of(self.random_state),
            parameters=lasting(self),
            versions=header["versions"],
        )


def fit_summary(denoiser: Denoiser, name: str) -> list[str]:
    """Lines on what a fitted denoiser learned from the images called ``name``."""
    info = denoiser.info()
    n, psnr = info["training"]["images"], info["training"]["psnr"]
    kind = "colour" if info["channels"] == 3 else "grey"
    quality = "no clean images: there is no PSNR"
    if psnr is not None:
        held_out = n > 1 and denoiser.validation_fraction > 0
        where = "on images held out" if held_out else "on the images it was fitted on"
        noisy = info["training"]["psnr_noisy"]
        quality = f"PSNR {noisy:.2f} dB noisy, {psnr:.2f} dB denoised, {where}"
    return [
        f"{info['model']} of {name}: {n:,} image{'s' * (n > 1)}, {kind}",
        f"chosen: networks of {info['n_parameters']:,} parameters, distance {info['distance']}",
        quality,
    ]

"""The codec: learns to compress, writes .narrow files, decodes them to the same bits everywhere."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from narrows.compression.codec_input import (
    check_kind,
    checked_images,
    is_rows,
    level_for,
    parse_error,
    read_items,
    resolve_mode,
)
from narrows.compression.codec_network import CodecConfig, CodecNetwork, LatentEncoder
from narrows.compression.codec_setup import (
    MAX_WHOLE,
    CodecData,
    build_model,
    pca_network,
    prepare_data,
    resolve_config,
)
from narrows.compression.decompress_files import decompress
from narrows.compression.format import Array
from narrows.compression.format.chunk_methods import AUTOENCODER, NAMES, CodingSettings
from narrows.compression.format.container import check_binary
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.integer_networks import Payload
from narrows.compression.format.pack import Summary, pack, range_of, row_axes
from narrows.compression.quantize_weights import measure_levels, quantize_model, sample_batches
from narrows.estimators.base import Learner
from narrows.estimators.build import Networks
from narrows.estimators.fit_and_resume import Usual
from narrows.estimators.fit_setup import FitData, Training, new_train_state, start_history
from narrows.estimators.fitted_state import (
    FittedState,
    History,
    load_module,
    pick_device,
    refuse_own_networks,
)
from narrows.estimators.model_file import versions
from narrows.estimators.parameters import (
    AXES,
    MAX_LAYER_WIDTH,
    Rule,
    as_ints,
    lasting,
    parameter,
    refuse_changes,
    rules_of,
    seed_of,
)
from narrows.estimators.pca import PCA
from narrows.estimators.summary import given_parameters, run_summary
from narrows.estimators.validation import Given as GivenRows
from narrows.estimators.validation import InputSpec, Layout, validate_X
from narrows.exceptions import InputError, ParameterError
from narrows.io.photographs import Images
from narrows.training.checkpoint import SCORE
from narrows.training.process_group import Group
from narrows.training.train_state import TrainState

ERRORS = ("bits_per_number", "mse")  # of the default level, on the validation rows
PATCHES_PER_STEP = 16
CHECKPOINT_SAMPLES = 32  # validation samples whose codes are counted for a checkpoint's tables


@dataclass(frozen=True, kw_only=True)
class CodecState(FittedState):
    """What a Codec learns.

    ``payload`` is the quantised model that files are decoded with, ``levels`` the rate and error of
    each level; both are known after training. ``pca`` (of the cells) and ``validation_sample``,
    from which a checkpoint's payload is made, are known during training only.
    """

    keys: ClassVar[Mapping[str, Rule]] = {
        **FittedState.keys,
        "choices": rules_of(CodecConfig),
        "levels": {"each": {"each": SCORE, "named": True, "most": 16}, "most": 16},
        "layout": rules_of(Layout) | {"none": True},
    }

    model: CodecNetwork
    config: CodecConfig
    payload: Payload | None = None
    levels: list[dict[str, float]] = field(default_factory=list)
    pca: PCA | None = None
    validation_sample: Tensor | None = None

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of a file, and what its header holds under "fitted"."""
        tensors, header = super().to_tensors()
        payload = self.payload
        if payload is None:  # a checkpoint: training has not ended
            assert self.validation_sample is not None
            level, samples = len(self.config.sigmas) // 2, [self.validation_sample]
            payload = quantize_model(self.model, self.config, level, samples, self.objective)
        tensors["payload"] = torch.from_numpy(np.frombuffer(payload.data, np.uint8).copy())
        layout = None if self.layout is None else asdict(self.layout)
        return tensors, {**header, "levels": self.levels, "layout": layout}


@dataclass(kw_only=True, eq=False, repr=False)
class Codec(Learner[CodecState], BaseEstimator):
    """min over f, g of E [ Σ (x − g(z))² / 2σ² − log p(z) ], z = round(f(x)): data as small files.

    Small images, signals and rows of tables are coded whole, larger images block by block, each
    with the blocks around it in view. Decoding uses whole numbers only: a file gives the same bits
    on every machine. Training starts at PCA with one quantisation step for all components.

    Source: Ballé, Laparra & Simoncelli, "End-to-end optimized image compression", ICLR 2017;
    Ballé, Johnston & Minnen, "Integer networks for data compression with latent-variable models",
    ICLR 2019.

    Parameters
    ----------
    The fields below, and those of training: ``narrows.estimators.parameters.RunParameters``.

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

    _file_keys: ClassVar = CodecState.keys
    _usual: ClassVar = Usual(weight_decay=0.01)

    rate: float | str = parameter(
        "auto",
        "Target of the middle level, in bits per number of X (per pixel of a grey image). auto: "
        "the rate at which PCA leaves 2 % of the variance.",
        kind=float,
        low=0,
        open=True,
        auto=True,
    )
    levels: int = parameter(
        7, "Quality levels of one model, each 3 dB from the next.", kind=int, low=1, high=16
    )
    quantizer: str = parameter(
        "noise",
        "noise: codes of any size, trained with uniform noise; fsq: a fixed number of values.",
        choices=("noise", "fsq"),
    )
    n_values: int = parameter(
        7, "With fsq, the number of values of each number in the code.", kind=int, low=3, high=255
    )
    prior: str = parameter(
        "conditional",
        "conditional: each number of the code is predicted from those before it; factorised: each "
        "has a fixed table, which is faster.",
        choices=("conditional", "factorised"),
    )
    latent_dim: int | str = parameter(
        "auto",
        "Numbers in the code of a cell. auto: the PCA components that take at least half a bit at "
        "the finest level.",
        kind=int,
        low=1,
        high=MAX_LAYER_WIDTH,
        auto=True,
    )
    hidden_layer_sizes: tuple[int, ...] | str = parameter(
        "auto",
        "Widths of the encoder's hidden layers; the decoder mirrors them. auto: for samples coded "
        "whole about twice the input (64 to 512), then half of it; for blocks 96,96.",
        kind=tuple,
        low=1,
        high=4096,
        auto=True,
    )
    block: tuple[int, ...] | str = parameter(
        "auto",
        "Height and width of the blocks that large images are cut into, as 8,8. auto: samples of "
        "up to 4,096 numbers are coded whole, larger images in blocks of 8,8.",
        kind=tuple,
        low=1,
        high=256,
        auto=True,
    )
    context: bool | str = parameter(
        "auto",
        "Also train a network that predicts each pixel from those before it, which makes lossless "
        "files smaller. auto: for 8-bit images that are coded whole.",
        choices=("auto", True, False),
    )
    axes: str | None = parameter(
        None,
        "What the axes of a sample mean. None: HW for three dimensions of data, CHW for four, HWC "
        "for a last axis of one channel; a shape that may be either is refused.",
        choices=AXES,
    )
    input_shape: ClassVar[None] = None
    missing: ClassVar[None] = None
    in_memory: ClassVar[str] = "auto"

    def fit(self, X: object, y: object = None, *, X_val: object = None) -> Self:
        """Learn to compress data like X.

        Parameters
        ----------
        X : array, or str, Path or list for images
            A table (n, d), signals (n, C, L), images (n, H, W) or (n, C, H, W); or a folder of
            images, or a list of images (H, W) or (H, W, 3) of any sizes. X must hold no NaN; leave
            such rows out first: ``X[~numpy.isnan(X).any(1)]``. ``compress`` takes them.
        y : ignored
        X_val : like X, optional
            Validation data, instead of a part of X.

        Raises
        ------
        InputError, FileError
            X cannot be used for training.
        ParameterError
            A parameter is out of range.
        """
        self._fit(X, X_val)
        return self

    def check_parameters(self) -> None:
        """Check the parameters, before any data is read; raises ``ParameterError``."""
        super().check_parameters()
        if not isinstance(self.block, str) and len(as_ints(self.block)) != 2:
            raise ParameterError(f"block needs two sides, as (8, 8). Got {self.block!r} instead.")
        if self.quantizer == "fsq" and self.n_values % 2 == 0:
            raise ParameterError(
                f"n_values must be odd, so that 0 is among the values. Got {self.n_values} instead."
            )

    def _validate_fit(
        self, X: object, X_val: object, y: object, fitted: CodecState | None
    ) -> FitData[GivenRows | Images]:
        if isinstance(X, str | Path | list) and not is_rows(X):
            return FitData(Images(X), None if X_val is None else Images(X_val))
        rows, spec = validate_X(self, X, None if fitted is None else fitted.spec)
        held = None if X_val is None else validate_X(self, X_val, spec)[0]
        return FitData(rows, held, spec)

    def _setup(self, data: FitData[GivenRows | Images], group: Group) -> Training[CodecState]:
        seed = group.broadcast(seed_of(self.random_state))
        device = pick_device(self.device, group)
        event, axes = None, None
        if data.spec is not None:
            layout = data.spec.layout
            axes = layout.axes
            event = None if self._uses_blocks(layout.shape) else layout.user_shape
        prepared = prepare_data(data, event is not None, self.validation_fraction, seed, device)
        config, pca = resolve_config(self, prepared, event, axes, seed)
        network, objective = build_model(config, seed)
        network.init_from_pca(pca)
        start = CodecState(
            model=network,
            objective=objective,
            config=config,
            history=start_history(0, 0, ERRORS),
            seed=seed,
            parameters=lasting(self),
            spec=data.spec,
        )
        state = new_train_state(seed, device, group)
        return self._training(start.to(device), state, data, prepared, pca)

    def _uses_blocks(self, shape: tuple[int, ...]) -> bool:
        """Whether rows (C, H, W) are cut into blocks: large images, or with ``block`` all."""
        if len(shape) < 3:
            return False
        return not isinstance(self.block, str) or math.prod(shape) > MAX_WHOLE

    def _training(
        self,
        start: CodecState,
        state: TrainState,
        data: FitData[GivenRows | Images],
        prepared: CodecData,
        pca: PCA,
    ) -> Training[CodecState]:
        sample = next(prepared.validation.in_order(CHECKPOINT_SAMPLES))
        history = start_history(len(data.rows), len(prepared.validation), ERRORS)
        # the payload of an earlier fit must not get into a checkpoint of this one
        start = replace(
            start, history=history, payload=None, levels=[], pca=pca, validation_sample=sample
        )
        return Training(start, state, prepared.rows, prepared.validation)

    def _batch_size(self, training: Training[CodecState]) -> int:
        """Patches have many cells each, so a step needs fewer of them."""
        whole = training.start.config.event is not None
        return super()._batch_size(training) if whole else PATCHES_PER_STEP

    def _resume(
        self, fitted: CodecState, data: FitData[GivenRows | Images], group: Group
    ) -> Training[CodecState]:
        refuse_changes(self, fitted.parameters)
        start = replace(fitted, versions=None, parameters=lasting(self))
        seed, device, config = start.seed, next(start.model.parameters()).device, start.config
        whole, fraction = config.event is not None, self.validation_fraction
        prepared = prepare_data(data, whole, fraction, seed, device)
        pca = resolve_config(self, prepared, config.event, config.axes, seed)[1]
        state = start.train_state or new_train_state(seed, device, group)
        return self._training(start, state, data, prepared, pca)

    # ------------------------------------------------------------------ what was learned

    def _finalize(
        self, training: Training[CodecState], history: History, group: Group
    ) -> CodecState:
        """Quantise the network, and measure each level and PCA's on the validation rows."""
        start, validation = training.start, training.validation
        network, config, pca = start.model, start.config, start.pca
        assert pca is not None
        rows = list(sample_batches(training.rows, start.seed))
        payload = quantize_model(network, config, 0, rows, start.objective)
        found = measure_levels(network, ExactDecoder(payload), validation)
        plain, plain_config = pca_network(config, pca)
        plain.to(network.log_gain.device)
        plain_model = ExactDecoder(quantize_model(plain, plain_config, 0, rows))
        pca_levels = measure_levels(plain, plain_model, validation)
        levels = [
            {**own, **{f"pca_{name}": value for name, value in other.items()}}
            for own, other in zip(found, pca_levels, strict=True)
        ]
        level = self._default_level(levels)
        history = replace(history, errors={name: levels[level][name] for name in ERRORS})
        state = super()._finalize(training, history, group)
        payload = Payload(payload.arrays, {**payload.structure, "level": level})
        # what only training needs stays behind
        return replace(state, payload=payload, levels=levels, pca=None, validation_sample=None)

    def _default_level(self, levels: list[dict[str, float]]) -> int:
        """The level whose measured rate is nearest to ``rate``; with "auto" the middle one."""
        if isinstance(self.rate, str):
            return len(levels) // 2
        rates = [max(found["bits_per_number"], 1e-9) for found in levels]
        return int(np.argmin([abs(np.log(rate / float(self.rate))) for rate in rates]))

    @property
    def input_shape_(self) -> tuple[int, ...] | None:
        """The shape of a sample; None for images of any size."""
        layout = self.state_.layout
        return None if layout is None else layout.user_shape

    @property
    def payload_(self) -> Payload:
        """The quantised model: what a file is decoded with, without the networks."""
        payload = self.state_.payload
        assert payload is not None
        return payload

    @property
    def levels_(self) -> list[dict[str, float]]:
        """Rate and error of each level on the validation rows, and PCA's."""
        return self.state_.levels

    @property
    def decoder_(self) -> ExactDecoder:
        """The exact decoder, with its tables: what a file is decoded with."""
        decoder: ExactDecoder | None = self.__dict__.get("_decoder")
        if decoder is None or decoder.payload is not self.payload_:
            decoder = self._decoder = ExactDecoder(self.payload_)
        return decoder

    def info(self) -> dict[str, Any]:
        """What was chosen, what was trained and how it went, as plain JSON."""
        state, history, config = self.state_, self.state_.history, self.state_.config
        return {
            "model": type(self).__name__,
            "parameters": given_parameters(self),
            "cell": list(config.event or (config.channels, *config.block)),
            "latent_dim": config.latent_dim,
            "parts": {**state.model.describe(), "R": "rate"},
            "n_parameters": self.n_parameters_,
            "id": self.payload_.id,
            "payload_bytes": len(self.payload_.data),
            "levels": [_level_in_words(level) for level in self.levels_],
            "training": {
                "rows": history.rows["given"],
                "validation_rows": history.rows["validation"],
                **run_summary(history),
                **history.errors,
                "stop_reason": history.stop_reason,
            },
            "versions": state.versions or versions(),
        }

    # ------------------------------------------------------------------ compressing

    def compress(self, X: object, **options: Any) -> bytes:
        """X as the bytes of a .narrow file; ``options`` are the parameters of ``compress_to``."""
        stream = io.BytesIO()
        self.compress_to(stream, X, **options)
        return stream.getvalue()

    def compress_to(
        self,
        stream: Any,
        X: object,
        *,
        mode: str | None = None,
        quality: int | None = None,
        max_error: float | str | None = None,
        embed_model: bool = False,
        autoencoder: bool = True,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Summary:
        """Compress X into a binary stream; returns sizes and errors.

        Parameters
        ----------
        stream : an open binary file, a pipe, ...
        X : array, or str, Path or list for images
            An array of any shape and numeric dtype (a memory map is read piece by piece), a folder
            of images, or a list of images (H, W) or (H, W, 3).
        mode : "lossy", "bounded" or "lossless", optional
            By default bounded with ``max_error``, lossy without.
        quality : int, optional
            Steps of about 3 dB from the model's own rate: 1 is better and larger, -1 the reverse.
        max_error : float or str, optional
            The largest error of any element, in X's units, or as "1e-3rel" of X's range. NaN and
            infinities are kept exactly.
        embed_model : bool
            Put the part of the model that decoding needs into the file.
        autoencoder : bool
            False: compress without it, to see how much it saves (not lossy).
        watch : callable
            Called after every chunk with the bytes done and in all.

        Raises
        ------
        InputError
            X cannot be compressed in this mode.
        ParameterError
            A parameter is out of range, or does not go with the mode.
        """
        decoder = self.decoder_
        check_binary(stream, "write", "stream must be")
        mode = resolve_mode(mode, quality, max_error, autoencoder)
        items, images = read_items(X)
        error = None
        if mode == "bounded":
            error, relative = parse_error(max_error)
            error = error * range_of(items) if relative else error
        if mode == "lossy" and not images:
            self._check_lossy(items[0])
        level = level_for(decoder, quality)
        settings = CodingSettings(mode, images, error, level=level)
        if autoencoder:  # without it, the file needs no model
            settings = replace(settings, model=decoder, analysis=self._encoder())
        # the total of images is not known before they are read
        total = 0 if images else math.prod(items[0].data.shape) * items[0].data.dtype.itemsize
        done = 0

        def report(n: int) -> None:
            nonlocal done
            done += n
            watch(done, total)

        known = np.dtype(self.state_.config.dtype)
        given = checked_images(items, known) if mode == "lossy" and images else items
        summary = pack(stream, given, settings, embed=embed_model, count=len(items), watch=report)
        lossless = summary.chunks - summary.methods[NAMES[AUTOENCODER]]
        if mode == "lossy" and lossless:
            warnings.warn(
                f"{lossless} of {summary.chunks} chunks are stored without loss: they hold NaN, or "
                "have a shape or channels that the codec was not fitted on.",
                UserWarning,
                stacklevel=2,
            )
        return summary

    def _encoder(self) -> LatentEncoder:
        config = self.state_.config
        shift, scale = config.broadcastable("shift"), config.broadcastable("scale")
        return LatentEncoder(self.state_.model, shift, scale)

    def _check_lossy(self, item: Any) -> None:
        """Raise ``InputError`` if the model cannot code an array of this kind and shape."""
        data, choices = item.data, self.state_.config
        check_kind(item, np.dtype(choices.dtype))
        axes = row_axes(data.shape)
        shape = (1, *data.shape[axes:]) if axes <= 1 else data.shape[axes - 1 :]
        if 0 not in data.shape and self.decoder_.grid(shape, False) is None:
            sample = ", ".join(map(str, choices.event or ()))
            expected = f"(n, {sample})" if sample else f"images of {choices.channels} channels"
            raise InputError(
                f"X has shape {data.shape}, but the codec expects {expected}: "
                "reshape X, or choose max_error or mode='lossless', which take any shape."
            )

    def decompress(self, source: object) -> Array | list[Array]:
        """The content of a .narrow file: an array, or for images a list of arrays.

        Parameters
        ----------
        source : bytes, str, Path or an open binary file

        Raises
        ------
        NotOurFile, UnsupportedVersion, WrongModel, Truncated, Corrupt, TooLarge
            The file cannot be decoded; all are children of ``FileError``.
        """
        found: Array | list[Array] = decompress(source, self.decoder_)
        return found

    def reconstruct(self, X: object, quality: int | None = None) -> Array | list[Array]:
        """X compressed and decompressed, by the same integer decoder as files."""
        return self.decompress(self.compress(X, quality=quality))

    # ------------------------------------------------------------------ files

    def __getstate__(self) -> dict[str, Any]:
        # the decoder follows from the payload
        return {k: v for k, v in super().__getstate__().items() if k != "_decoder"}

    @property
    def _probe_shape(self) -> tuple[int, ...]:
        return 2, self.state_.config.channels, *self.state_.config.block

    @torch.no_grad()
    def _probe_output(self, x: Tensor) -> tuple[Tensor, ...]:
        network = self.state_.model
        y = network.latents(x.to(network.log_gain.device))
        return y.flatten(1).cpu(), network.decode(y).cpu()

    def _state_from_tensors(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        header: Mapping[str, Any],
        own: Networks | None,
    ) -> CodecState:
        refuse_own_networks(path, own)
        fitted = header["fitted"]
        config, layout = CodecConfig.from_json(fitted["choices"]), fitted["layout"]
        spec = None
        if layout is not None:
            spec = InputSpec(Layout(**{**layout, "user_shape": tuple(layout["user_shape"])}))
        network, objective = build_model(config, None)
        load_module(network, "model.", tensors)
        load_module(objective, "objective.", tensors)
        payload = Payload.from_bytes(tensors["payload"].numpy().tobytes())
        ExactDecoder(payload)  # raises now if anything in it is invalid
        return CodecState(
            model=network.eval(),
            objective=objective,
            config=config,
            history=History.from_json(fitted),
            seed=seed_of(self.random_state),
            parameters=lasting(self),
            versions=header["versions"],
            spec=spec,
            payload=payload,
            levels=fitted["levels"],
        )


def _level_in_words(level: dict[str, float]) -> str:
    own, pca = (
        f"{level[start + 'bits_per_number']:.4g} bits a number, mse {level[start + 'mse']:.4g}"
        for start in ("", "pca_")
    )
    return f"{own} (PCA {pca})"

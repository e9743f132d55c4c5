"""What a codec does once it has learned: compress to a file or bytes, and back."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from narrows.compression.format.chunk_methods import AUTOENCODER, NAMES, CodingSettings
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.latent_codes import MAX_CODE
from narrows.compression.format.pack import (
    Given,
    Summary,
    check_binary,
    decompress,
    ends_of,
    pack,
    range_of,
    row_axes,
)
from narrows.exceptions import InputError, InputTypeError, ParameterError
from narrows.io.photographs import find_photographs, read_photograph
from narrows.io.sources import nbytes
from narrows.training.batches import inference_batch

Array = NDArray[Any]
MODES = ("lossy", "bounded", "lossless")


class Latents:
    """f and the rounding of a coder, as `AnalysisTransform` wants them: arrays in, arrays out."""

    def __init__(self, coder: Any, choices: Any) -> None:
        self.coder = coder
        self.shift, self.scale = choices.unit("shift"), choices.unit("scale")

    @torch.no_grad()
    def latents(self, planes: Array) -> Array:
        """Before rounding, (n, latent_dim, rows, columns), of planes in the user's units."""
        coder, out = self.coder.eval(), []
        device = coder.log_gain.device
        for part in np.array_split(planes, -(-len(planes) // inference_batch(planes.shape[1:]))):
            with np.errstate(over="ignore"):  # far beyond all that it was fitted on
                x = ((part.astype(np.float64) - self.shift) / self.scale).astype(np.float32)
            out.append(coder.latents(torch.from_numpy(x).to(device)).cpu())
        return np.asarray(torch.cat(out))

    @torch.no_grad()
    def quantise(self, latents: Array, level: int) -> Array:
        """Codes at a level, whole numbers."""
        device = self.coder.log_gain.device
        codes = self.coder.codes(torch.from_numpy(latents).to(device), level)
        whole: Array = codes.nan_to_num().clamp(-MAX_CODE, MAX_CODE).long().cpu().numpy()
        return whole


def parse_error(asked: Any) -> tuple[float, bool]:
    """A largest error and whether it is relative: 0.01, "0.01", "1e-3rel".

    >>> parse_error("1e-3rel"), parse_error(2)
    ((0.001, True), (2.0, False))
    """
    text = str(asked)
    relative = re.fullmatch(r"(.+?)\s*rel", text)
    try:
        value = float(relative[1] if relative else text)
    except ValueError:
        value = -1.0
    if isinstance(asked, bool) or not 0 <= value < float("inf"):
        raise ParameterError(
            f'max_error must be a number from 0 in the units of X, or as "1e-3rel" a share of its '
            f"range. Got {asked!r} instead."
        )
    return value, relative is not None


def items_of(X: Any) -> tuple[list[Any], bool]:
    """What is to be compressed, and whether it is images rather than one array."""
    if isinstance(X, str | Path):
        path = Path(X)
        paths = find_photographs(path) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        return [_File(p, p.relative_to(root).as_posix()) for p in paths], True
    if isinstance(X, list) and X and isinstance(X[0], np.ndarray):
        for i, image in enumerate(X):
            if np.ndim(image) not in (2, 3) or np.shape(image)[2:] > (4,):
                raise InputError(
                    f"Item {i} of X has shape {np.shape(image)}, but a list holds images, (H, W) "
                    "or (H, W, 3); stack other arrays into one."
                )
        return [Given(np.asarray(image), f"{i:06d}.png") for i, image in enumerate(X)], True
    return [Given(_as_array(X))], False


def _as_array(X: Any) -> Any:
    """One array of what may be a tensor or rows in lists; what is read piece by piece stays."""
    if hasattr(X, "toarray"):
        raise InputError("X is sparse, but a codec takes dense data: give X.toarray().")
    try:
        if hasattr(X, "detach"):
            return X.detach().cpu().numpy()
        return X if hasattr(X, "shape") and hasattr(X, "dtype") else np.asarray(X)
    except TypeError:
        raise InputTypeError(
            f"X holds {X.dtype}, which NumPy has no place for: convert it, as with X.float()."
        ) from None
    except ValueError:
        raise InputError("X is ragged: make all its rows the same length.") from None


class _File:
    """An image that is decoded when it is asked for."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @property
    def data(self) -> Array:
        """Its pixels as they are to be seen, with transparency, if any, behind the colours."""
        planes = read_photograph(self.path).upright
        return planes[..., 0] if planes.shape[2] == 1 else planes


class _Like:
    """An image that is refused, when it is asked for, unless its numbers are of the kind fitted."""

    def __init__(self, item: Any, known: np.dtype[Any]) -> None:
        self.item, self.name, self.known = item, item.name, known

    @property
    def data(self) -> Any:
        """Its pixels."""
        found = Given(self.item.data, self.name)
        check_kind(found, self.known)
        return found.data


def check_kind(item: Given, known: np.dtype[Any]) -> None:
    """Refuse numbers that a codec fitted on the dtype ``known`` would make nonsense of."""
    dtype, what = np.dtype(item.data.dtype), item.name or "X"
    kinds = [kind.replace("u", "i") for kind in (dtype.kind, known.kind)]
    held = str(dtype)
    if kinds[0] == kinds[1]:
        if kinds[0] != "i" or np.can_cast(dtype, known):
            return
        low, high = ends_of([item])
        ends = np.iinfo(known)
        if ends.min <= low and high <= ends.max:
            return
        held = f"{dtype} from {low:.0f} to {high:.0f}"
    raise InputError(
        f"{what} holds {held}, but the codec was fitted on {known}: convert it, or choose "
        "max_error or mode='lossless', which take any numbers."
    )


class Packs:
    """The verbs of a codec: compress, decompress, reconstruct."""

    model_: Any
    choices_: Any
    layout_: Any

    @property
    def decoder_(self) -> ExactDecoder:
        """The exact decoder."""
        raise NotImplementedError

    def compress(self, X: Any, **how: Any) -> bytes:
        """X as the bytes of a .narrow file; see ``compress_to`` for what may be asked."""
        stream = io.BytesIO()
        self.compress_to(stream, X, **how)
        return stream.getvalue()

    def compress_to(
        self,
        stream: Any,
        X: Any,
        *,
        mode: str | None = None,
        quality: int | None = None,
        max_error: float | str | None = None,
        embed_model: bool = False,
        autoencoder: bool = True,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Summary:
        """Compress X into a binary stream, and tell what became of it.

        Parameters
        ----------
        stream : an open binary file, a pipe, ...
        X : array, or str, Path or list for images
            An array of any shape and numeric dtype (a memory map is read piece by piece), a folder
            of images, or a list of images (H, W) or (H, W, 3).
        mode : "lossy", "bounded" or "lossless", optional
            By default lossy; bounded where ``max_error`` is given.
        quality : int, optional
            Steps of about 3 dB from the model's own rate: 1 is better and larger, -1 the reverse.
        max_error : float or str, optional
            What no element may be further off than, in X's units, or as "1e-3rel" of X's range.
            NaN and infinities come back as they are.
        embed_model : bool
            Put what decoding needs of the model into the file.
        autoencoder : bool
            False: code without it, to see what it is worth (not lossy).
        watch : callable
            Told the bytes done and in all, after every chunk.

        Raises
        ------
        InputError
            X is nothing that this codec can code so.
        ParameterError
            A wish has no meaning.
        """
        check_is_fitted(self, "payload_")
        check_binary(stream, "write", "stream must be")
        mode = self._mode(mode, quality, max_error, autoencoder)
        items, images = items_of(X)
        error = None
        if mode == "bounded":
            error, relative = parse_error(max_error)
            error = error * range_of(items) if relative else error
        if mode == "lossy" and images:
            items = [_Like(item, np.dtype(self.choices_.dtype)) for item in items]
        elif mode == "lossy":
            self._check_lossy(items[0])
        analysis = None
        if autoencoder:
            latents = Latents(self.model_, self.choices_)
            analysis = latents
        level = level_for(self.decoder_, quality)
        # switched off, the file needs no model
        model = self.decoder_ if autoencoder else None
        wish = CodingSettings(mode, images, error, model, level, analysis)
        total, done = (0 if images else nbytes(items[0].data)), 0

        def told(n: int) -> None:
            nonlocal done
            done += n
            watch(done, total)

        summary = pack(stream, items, wish, embed=embed_model, count=len(items), watch=told)
        strange = summary.chunks - summary.methods[NAMES[AUTOENCODER]]
        if mode == "lossy" and strange:
            warnings.warn(
                f"{strange} of {summary.chunks} chunks are stored without loss: they have NaN, or "
                "channels or a shape that the codec was not fitted on.",
                UserWarning,
                stacklevel=2,
            )
        return summary

    @staticmethod
    def _mode(mode: str | None, quality: Any, max_error: Any, autoencoder: bool) -> str:
        mode = mode or ("lossy" if max_error is None else "bounded")
        if mode not in MODES:
            raise ParameterError(f"mode must be one of {', '.join(MODES)}. Got {mode!r} instead.")
        if (mode == "bounded") != (max_error is not None):
            raise ParameterError(
                "max_error and mode='bounded' go together: give max_error as a number or as "
                "'1e-3rel', or choose another mode."
            )
        if mode != "lossy" and quality is not None:
            raise ParameterError(f"quality has no meaning with mode={mode!r}: leave it out.")
        if mode == "lossy" and not autoencoder:
            raise ParameterError(
                "Without the autoencoder nothing can be lossy: give max_error, or mode='lossless'."
            )
        return mode

    def _check_lossy(self, item: Any) -> None:
        """Refuse an array that the model has no place for."""
        data, choices = item.data, self.choices_
        check_kind(item, np.dtype(choices.dtype))
        axes = row_axes(data.shape)
        shape = (1, *data.shape[axes:]) if axes <= 1 else data.shape[axes - 1 :]
        if 0 not in data.shape and self.decoder_.grid(shape, False) is None:
            sample = ", ".join(map(str, choices.event or ()))
            seen = f"(n, {sample})" if sample else f"images of {choices.channels} channels"
            raise InputError(
                f"X has shape {data.shape}, but the codec expects {seen}: "
                "reshape X, or choose max_error or mode='lossless', which take any shape."
            )

    def decompress(self, source: Any) -> Any:
        """What a .narrow file holds: an array, or for images a list of arrays.

        Parameters
        ----------
        source : bytes, str, Path or an open binary file

        Raises
        ------
        NotOurFile, UnsupportedVersion, WrongModel, Truncated, Corrupt, TooLarge
            The file cannot be decoded; all are children of ``FileError``.
        """
        check_is_fitted(self, "payload_")
        return decompress(source, self.decoder_)

    def reconstruct(self, X: Any, quality: int | None = None) -> Any:
        """X after it was compressed and decompressed, by the very same integers."""
        return self.decompress(self.compress(X, quality=quality))


def level_for(model: ExactDecoder, quality: Any) -> int | None:
    """The level that is ``quality`` steps better than the model's own; None for its own."""
    if quality is None:
        return None
    last = model.n_levels - 1
    fine = isinstance(quality, int | np.integer) and not isinstance(quality, bool)
    if not fine or not 0 <= model.level + int(quality) <= last:
        raise ParameterError(
            f"quality is counted in steps of 3 dB from the model's own, from {-model.level} to "
            f"{last - model.level}. Got {quality!r} instead."
        )
    return model.level + int(quality)

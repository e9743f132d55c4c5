"""What ``Codec.compress`` accepts: arrays, images and files, and the options for each mode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from narrows.compression.format import Array
from narrows.compression.format.decoder import ExactDecoder
from narrows.compression.format.header import MODES
from narrows.compression.format.pack import Given, ends_of
from narrows.exceptions import InputError, InputTypeError, ParameterError
from narrows.io.photographs import find_photographs, read_photograph
from narrows.io.sources import has_any, refuse_container, unmasked


def level_for(model: ExactDecoder, quality: int | None) -> int | None:
    """The level ``quality`` steps above the model's default one; None for the default."""
    if quality is None:
        return None
    last = model.n_levels - 1
    valid = isinstance(quality, int | np.integer) and not isinstance(quality, bool)
    if not valid or not 0 <= model.level + int(quality) <= last:
        raise ParameterError(
            f"quality counts steps of 3 dB from the model's own level, here from {-model.level} to "
            f"{last - model.level}. Got {quality!r} instead."
        )
    return model.level + int(quality)


def resolve_mode(
    mode: str | None, quality: int | None, max_error: float | str | None, autoencoder: bool
) -> str:
    mode = mode or ("lossy" if max_error is None else "bounded")
    if mode not in MODES:
        raise ParameterError(f"mode must be one of {', '.join(MODES)}. Got {mode!r} instead.")
    if (mode == "bounded") != (max_error is not None):
        raise ParameterError(
            "max_error and mode='bounded' go together: give max_error as a number or as "
            "'1e-3rel', or choose another mode."
        )
    if mode != "lossy" and quality is not None:
        raise ParameterError(f"quality is for mode='lossy', not for mode={mode!r}: leave it out.")
    if mode == "lossy" and not autoencoder:
        raise ParameterError(
            "Lossy files need the autoencoder: with autoencoder=False give max_error, or "
            "mode='lossless'."
        )
    return mode


def parse_error(max_error: float | str | None) -> tuple[float, bool]:
    """The largest error, and whether it is relative to the range: 0.01, "0.01", "1e-3rel".

    >>> parse_error("1e-3rel"), parse_error(2)
    ((0.001, True), (2.0, False))
    """
    text = str(max_error)
    relative = re.fullmatch(r"(.+?)\s*rel", text)
    try:
        value = float(relative[1] if relative else text)
    except ValueError:
        value = -1.0
    if isinstance(max_error, bool) or not 0 <= value < float("inf"):
        raise ParameterError(
            "max_error must be a number from 0 in the units of X, or a share of its range as "
            f"'1e-3rel'. Got {max_error!r} instead."
        )
    return value, relative is not None


def read_items(X: object) -> tuple[list[Any], bool]:
    """What is to be compressed, items with ``data`` and ``name``; and whether they are images."""
    if isinstance(X, str | Path):
        path = Path(X)
        paths = find_photographs(path) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        return [_ImageFile(p, p.relative_to(root).as_posix()) for p in paths], True
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
    """A tensor or rows in lists as an array; an array on a disk is returned as it is."""
    if type(X) is np.ndarray and X.dtype.kind in "fiub":
        return X
    if has_any(X, "toarray"):
        raise InputError("X is sparse, but a codec takes dense data: give X.toarray().")
    refuse_container(X)
    X = unmasked(X)
    try:
        if isinstance(X, Tensor):
            return X.detach().cpu().numpy()
        return X if isinstance(getattr(X, "dtype", None), np.dtype) else np.asarray(X)
    except TypeError:
        raise InputTypeError(
            f"X holds {X.dtype}, which NumPy does not have: convert it, as with X.float()."
        ) from None
    except ValueError:
        raise InputError("X is ragged: make all its rows the same length.") from None


class _ImageFile:
    """An image file, decoded each time its ``data`` is used."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    @property
    def data(self) -> Array:
        """Its pixels, upright, with transparency, if any, after the colours."""
        planes = read_photograph(self.path).upright
        return planes[..., 0] if planes.shape[2] == 1 else planes


def checked_images(items: list[Any], known: np.dtype[Any]) -> Iterator[Given]:
    """The items, each read once and checked against the dtype that the codec was fitted on."""
    for item in items:
        given = Given(item.data, item.name)
        check_kind(given, known)
        yield given


def check_kind(item: Given, known: np.dtype[Any]) -> None:
    """Raise ``InputError`` for numbers unlike the dtype that the codec was fitted on."""
    dtype, what = np.dtype(item.data.dtype), item.name or "X"
    kinds = [kind.replace("u", "i") for kind in (dtype.kind, known.kind)]
    held = str(dtype)
    if kinds[0] == kinds[1]:
        if kinds[0] != "i" or np.can_cast(dtype, known):
            return
        low, high = ends_of([item])
        limits = np.iinfo(known)
        if limits.min <= low and high <= limits.max:
            return
        held = f"{dtype} from {low:.0f} to {high:.0f}"
    raise InputError(
        f"{what} holds {held}, but the codec was fitted on {known}: convert it, or choose "
        "max_error or mode='lossless', which take any numbers."
    )


def is_rows(X: object) -> bool:
    """Whether a list holds rows of numbers, not images or names of files."""
    return isinstance(X, list) and bool(X) and not isinstance(X[0], str | Path | np.ndarray)

"""The methods of a representation, in the user's units: transform, inverse_transform, score ...

`ReconstructionMixin` turns two functions between scaled rows and codes into the public methods. The
estimators have it, and so has the PCA beside each of them: both are measured by the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from torch import Tensor, nn

from narrows.estimators.build import within_bounds
from narrows.estimators.fitted_state import EstimatorState
from narrows.estimators.parameters import check_value, named_plainly
from narrows.estimators.pca import PCA, filled
from narrows.estimators.validation import Array, Given, in_steps, validate_X
from narrows.exceptions import InputError
from narrows.io.sources import Source, as_source, unmasked
from narrows.io.write import check_output, concatenate_to
from narrows.parts.model import Model
from narrows.training.batches import Rows, Scaling, as_tensor, inference_batch
from narrows.training.process_group import current_group
from narrows.training.streamed_batches import Stream

NARROW = {"|u1": torch.uint8, "|i1": torch.int8, "<i2": torch.int16, "<f4": torch.float32}
MAX_SCALED = 1e15  # standard deviations; the squares of larger values overflow float32


Method = TypeVar("Method", bound=Callable[..., Any])


def framed(method: Method) -> Method:
    """A decorator: rows of a table come back as the frame that ``set_output`` asks for.

    It has the columns of the fit, and the index of the method's first argument if that has one.
    """

    @wraps(method)
    def answer(self: ReconstructionMixin, *given: Any, **more: Any) -> Any:
        rows = method(self, *given, **more)
        return self._in_container(rows, next(iter([*given, *more.values()]), None))

    return cast(Method, answer)


@named_plainly
class ReconstructionMixin(TransformerMixin):
    """The public methods of whatever has ``state_``."""

    state_: EstimatorState

    def _validate(self, X: object) -> Given:
        """X checked, in the networks' shape."""
        return validate_X(self, X, self.state_.spec)[0]

    def _encode(self, x: Tensor) -> Tensor:
        """Scaled rows (B, *shape) → codes (B, k)."""
        return self.state_.model.encode(x)

    def _decode(self, z: Tensor) -> Tensor:
        """Codes (B, k) → scaled rows."""
        return self.state_.model.decode(z)

    def _code_width(self) -> int:
        """k, the numbers in a code."""
        return self.state_.config.latent_dim

    def _scaled(self, rows: Given, first: int = 0) -> Iterator[Tensor]:
        for start, part in in_steps(rows, inference_batch(self.state_.spec.layout.shape)):
            x = self.state_.scaling.apply(as_tensor(part).to(self._device))
            if part.dtype.kind in "iub" and part.dtype.itemsize < 4:
                yield x  # 8 or 16 bits: no scale makes them too large
                continue
            low, high = x.aminmax()
            if not (low > -MAX_SCALED and high < MAX_SCALED):
                too_large = (x.abs() >= MAX_SCALED).flatten(1).any(1).nonzero()
                if len(too_large):
                    raise InputError(
                        f"Row {first + start + int(too_large[0])} of X is too far from the rows "
                        "that the model was fitted on: once scaled it overflows float32; drop it, "
                        "or fit on rows like it."
                    )
            yield x

    def _decoded(self, x: Tensor) -> Tensor:
        return self._decode(self._encode(x)).view_as(x)

    def _answers(
        self,
        X: object,
        answer: Callable[[Tensor], Array],
        out: str | Path | None = None,
        overwrite: bool = False,
    ) -> Array:
        """``answer`` of every scaled row; in a group of processes each does its share in memory."""
        _check_out(out, overwrite)
        rows = self._validate(X)

        def work(part: Given, first: int) -> Array:
            parts = map(answer, self._scaled(part, first))
            return concatenate_to(parts, len(part), out, overwrite=overwrite)

        if out is not None or not isinstance(rows, np.ndarray):
            return work(rows, 0)
        return current_group().map_rows(rows, work, inference_batch(self.state_.spec.layout.shape))

    @torch.no_grad()
    def transform(
        self, X: object, *, out: str | Path | None = None, overwrite: bool = False
    ) -> NDArray[np.float32]:
        """The codes of X: z = f(x), without noise.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
            In the user's units.
        out : path that ends in .npy, optional
            Write the codes there, block by block, and return that file mapped for reading: neither
            X (a memory map, or anything else that is read by slices) nor Z need fit in memory.
        overwrite : bool
            Replace ``out`` if it exists.

        Returns
        -------
        Z : array of shape (n, latent_dim), float32
        """
        return self._codes(X, out, overwrite)

    @torch.no_grad()
    def _codes(
        self, X: object, out: str | Path | None = None, overwrite: bool = False
    ) -> NDArray[np.float32]:
        """The codes as an array, whatever container ``set_output`` asks for."""

        def encode(x: Tensor) -> Array:
            return checked_answer(self._encode(x).float()).cpu().numpy()

        return self._answers(X, encode, out, overwrite)

    def _in_container(self, rows: Any, like: object) -> Any:
        """Rows of a table in the container of ``set_output``; all else as it is."""
        from sklearn.utils._set_output import _get_container_adapter  # no public name

        adapter = _get_container_adapter("transform", self)
        table = isinstance(rows, np.ndarray) and rows.ndim == 2
        if adapter is None or not table or not hasattr(self, "get_feature_names_out"):
            return rows
        names = self.state_.spec.feature_names
        columns = [f"x{i}" for i in range(rows.shape[1])] if names is None else list(names)
        return adapter.create_container(rows, like, columns)

    @framed
    @torch.no_grad()
    def inverse_transform(
        self, Z: object, *, out: str | Path | None = None, overwrite: bool = False
    ) -> Array:
        """What codes stand for: x' = g(z), in the user's units, shape and dtype.

        Integers are rounded and kept within their dtype. ``out`` and ``overwrite`` are those of
        ``transform``. After ``set_output(transform="pandas")`` rows of a table are a frame with the
        columns of the fit, as those of all methods that return rows.
        """
        return self._rows(Z, out, overwrite)

    @torch.no_grad()
    def _rows(self, Z: object, out: str | Path | None = None, overwrite: bool = False) -> Array:
        """The decoded codes as an array, whatever container ``set_output`` asks for."""
        _check_out(out, overwrite)
        codes = validate_codes(Z, self._code_width())
        rows = (self._from_model(self._decode(z)) for z in self._code_batches(codes))
        return concatenate_to(rows, len(codes), out, overwrite=overwrite)

    def _code_batches(self, Z: Codes) -> Iterator[Tensor]:
        for _, part in in_steps(Z, inference_batch(self.state_.spec.layout.shape)):
            yield as_tensor(part).to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.state_.scaling.shift.device

    def _from_model(self, scaled: Tensor, dtype: str | None = None) -> Array:
        shaped = scaled.reshape(len(scaled), *self.state_.spec.layout.shape)
        narrow = NARROW.get(dtype or self.state_.spec.layout.dtype)
        if narrow is not None:  # integers hide what is not finite
            rows = self.state_.scaling.undo_narrow(checked_answer(shaped), narrow)
        else:
            rows = self.state_.scaling.undo(shaped)
        return self.state_.spec.layout.from_model(checked_answer(rows).cpu().numpy(), dtype)

    @framed
    @torch.no_grad()
    def reconstruct(
        self, X: object, *, out: str | Path | None = None, overwrite: bool = False
    ) -> Array:
        """g(f(x)): X through the code and back; ``inverse_transform(transform(X))``.

        ``out`` and ``overwrite`` are those of ``transform``.
        """
        return self._answers(X, lambda x: self._from_model(self._decoded(x)), out, overwrite)

    @framed
    @torch.no_grad()
    def impute(self, X: object, *, out: str | Path | None = None, overwrite: bool = False) -> Array:
        """X with its missing elements (NaN) filled in from ``reconstruct``; all others as they are.

        Needs a model with ``missing="mask"``. It is one pass: f sees the mean of each element that
        is missing; of a row without any value it sees means alone. A model that has learned to
        restore hidden elements does this best:
        ``DenoisingAutoencoder(noise="masking", missing="mask")``.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
        out, overwrite
            As in ``transform``.

        Returns
        -------
        array like X, in its own dtype
        """
        _check_out(out, overwrite)
        rows, layout = self._validate(X), self.state_.spec.layout

        def filled_in() -> Iterator[Array]:
            for start, part in in_steps(rows, inference_batch(layout.shape)):
                given = layout.from_model(part, rows.dtype.str)
                (x,) = self._scaled(part, start)
                gaps = np.isnan(given) if given.dtype.kind == "f" else np.zeros(given.shape, bool)
                back = self._from_model(self._decoded(x)) if gaps.any() else given
                yield np.where(gaps, back, given).astype(given.dtype, copy=False)

        return concatenate_to(filled_in(), len(rows), out, overwrite=overwrite)

    def _interpolate(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """The path from codes a to b at the fractions t, (len(t), n, latent_dim)."""
        return torch.lerp(a, b, t[:, None, None])

    @torch.no_grad()
    def interpolate(self, A: object, B: object, *, steps: int = 9) -> Array:
        """From each row of A to that of B, decoded at even steps: g((1 − t) f(a) + t f(b)).

        Where codes lie on a curved space (a sphere, the Poincaré ball) along its shortest way.

        Parameters
        ----------
        A, B : arrays of shape (n, \\*input_shape_)
        steps : int, at least 2
            The first and the last are the reconstructions of the two rows.

        Returns
        -------
        array of shape (n, steps, \\*input_shape_), in the user's units
        """
        check_value("steps", steps, kind=int, low=2)
        a, b = (torch.from_numpy(self._codes(rows)).to(self._device) for rows in (A, B))
        if len(a) != len(b):
            raise InputError(f"A has {len(a)} rows and B {len(b)}; give as many of both.")
        paths = self._interpolate(a, b, torch.linspace(0.0, 1.0, int(steps), device=a.device))
        decoded = self._rows(paths.transpose(0, 1).flatten(0, 1))
        return decoded.reshape(len(a), int(steps), *decoded.shape[1:])

    @torch.no_grad()
    def score(self, X: object, y: object = None) -> float:
        """The pooled R² of the reconstruction in the user's units; 1 is perfect.

        1 − Σ (x − x')² / Σ (x − x̄)² over all rows and elements, x̄ the mean of each element;
        missing elements do not count. x' = g(f(x)) as it is; where X holds integers
        ``reconstruct`` rounds it, and the R² of what it returns is another.
        """
        rows = self._validate(X)
        weight = (
            self.state_.scaling.scale / self.state_.scaling.scale.max()
        )  # 1e300² would be no number
        residual, square, first = 0.0, 0.0, None
        sums = counts = torch.zeros((), dtype=torch.float64, device=self._device)
        for x in self._scaled(rows):
            error = _error(x, self._decoded(x)) * weight
            residual += float(error.square().sum())
            # spread does not depend on a shift; about the first row, a large mean cannot drown it
            first = filled(x.double())[0] if first is None else first
            deviation = _error(x, first) * weight
            sums, counts = sums + deviation.sum(0), counts + (~x.isnan()).sum(0)
            square += float(deviation.square().sum())
        total = square - float((sums.square() / counts.clamp(min=1)).sum())
        if total <= 1e-12 * max(square, 1e-300):
            return 1.0 if residual <= 1e-12 * max(square, 1e-300) else 0.0
        return 1.0 - residual / total

    @torch.no_grad()
    def score_samples(self, X: object) -> NDArray[np.float64]:
        """Minus the mean squared error per element of each row, in scaled units, float64.

        Missing elements do not count; a row without any observed one has 0.
        """
        return -self._row_errors(X)

    @torch.no_grad()
    def _row_errors(self, X: object, weight: Tensor | None = None) -> NDArray[np.float64]:
        """The mean squared error per element of each row, in scaled units times ``weight``."""

        def measure(x: Tensor) -> Array:
            difference = _error(x, self._decoded(x))
            difference = difference if weight is None else difference * weight
            errors = difference.square().flatten(1).sum(1)
            observed = (~x.isnan()).flatten(1).sum(1).clamp(min=1)
            return checked_answer(errors / observed).cpu().numpy()

        return self._answers(X, measure)

    @torch.no_grad()
    def _per_row(self, X: object, measure: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        rows = self._validate(X)
        parts = (measure(x).double().cpu().numpy() for x in self._scaled(rows))
        return concatenate_to(parts, len(rows))


def checked_answer(answer: Tensor) -> Tensor:
    """The answer of a model; raises InputError if it holds NaN or infinity."""
    if answer.is_floating_point() and not all(map(math.isfinite, answer.aminmax())):
        raise InputError(
            "The model's answer overflows float32: X or Z is too far from what the model was "
            "fitted on, or the model was damaged; drop extreme rows, or fit it again."
        )
    return answer


def _check_out(out: str | Path | None, overwrite: bool) -> None:
    """Refuse a file that cannot be written before any work is done."""
    if out is not None:
        check_output(out, (".npy",), overwrite=overwrite)


@torch.no_grad()
def mean_error(model: ReconstructionMixin, rows: Rows | Stream) -> float:
    """Mean squared error per element of scaled rows; missing elements do not count."""
    batches = rows.in_order(inference_batch(rows.shape))
    total, count = 0.0, 0
    for x in batches:
        total += float(_error(x, model._decoded(x)).square().sum())
        count += int((~x.isnan()).sum())
    return total / max(1, count)


def _error(x: Tensor, back: Tensor) -> Tensor:
    """x − x', in float64; 0 where x is missing. NaN in x' stays NaN."""
    return torch.where(x.isnan(), 0.0, x.double() - back)


class LazyCodes:
    """Codes that are read by slices; each slice is checked as codes in memory are."""

    def __init__(self, source: Source, width: int) -> None:
        self.source, self.width, self.shape = source, width, tuple(source.shape)
        self.dtype, self.chunks = np.dtype(np.float32), getattr(source, "chunks", None)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        """These codes; InputError where one is no number."""
        return _checked_codes(self.source[rows], self.width, first=rows.indices(len(self))[0])


class RowsToCodes(nn.Module):
    """The encoder as a plain module: rows in the user's units and shape → codes, as ``transform``.

    It reshapes, scales (and fills in missing values) as the estimator does, in a graph that
    gradients pass. It shares its weights with the estimator: copy.deepcopy it before you train it
    or move it to a device.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, state: EstimatorState) -> None:
        super().__init__()
        self.layout, self.model = state.layout, self._parts_of(state.model)
        self.register_buffer("shift", state.scaling.shift)
        self.register_buffer("scale", state.scaling.scale)
        self.eval()

    def _parts_of(self, model: Model) -> Model:
        return model.only(*model.encoder_parts)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), *self.layout.user_shape)
        rows = rows.movedim(-1, 1) if self.layout.axes == "HWC" else rows
        rows = Scaling("", self.shift, self.scale).apply(rows.reshape(len(x), *self.layout.shape))
        return self.model.encode(rows)


class CodesToRows(RowsToCodes):
    """The decoder as a plain module: codes → rows in the user's units and shape.

    These are the rows of ``inverse_transform`` before they are rounded to the data's dtype, and
    gradients pass: float32 for float32, int8, uint8 and int16 data, else float64. Weights are
    shared.
    """

    def _parts_of(self, model: Model) -> Model:
        return model.only("g", "D")

    def forward(self, z: Tensor) -> Tensor:
        rows = self.model.decode(z.float()).reshape(len(z), *self.layout.shape)
        rows = Scaling("", self.shift, self.scale).undo(rows)
        rows = rows.movedim(1, -1) if self.layout.axes == "HWC" else rows
        shape = (self.layout.n_features,) if self.layout.folded else self.layout.user_shape
        exact = self.layout.dtype in NARROW
        return rows.reshape(len(z), *shape).to(torch.float32 if exact else torch.float64)


Codes = NDArray[np.float32] | LazyCodes


def validate_codes(Z: object, width: int) -> Codes:
    if isinstance(Z, Tensor):
        Z = Z.detach().cpu().numpy()
    source = as_source(Z)
    if source is None:
        return _checked_codes(Z, width)
    _checked_codes(source[0:1], width)
    return LazyCodes(source, width)


def _checked_codes(Z: object, width: int, first: int = 0) -> NDArray[np.float32]:
    try:
        codes = np.ascontiguousarray(np.asarray(unmasked(Z)), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"Z does not hold numbers: {error}.") from error
    if codes.ndim != 2 or codes.shape[1] != width:
        raise InputError(
            f"Z has shape {codes.shape}; expected (n, {width}), one row for each code."
        )
    if len(codes) == 0:
        raise InputError("Z holds no codes; give at least one row.")
    bad = np.argwhere(~np.isfinite(codes))
    if len(bad):
        row, column = first + int(bad[0][0]), bad[0][1]
        raise InputError(f"Z contains NaN or infinity in row {row}, column {column}.")
    return codes


class PCABeside(ReconstructionMixin):
    """PCA of the same scaled training rows at the same width, with the same methods.

    Its reconstructions are kept within the same bounds as the model's, if ``bounded``.
    ``validate`` is the estimator's check of X.
    """

    def __init__(
        self,
        state: EstimatorState,
        pca: PCA,
        validate: Callable[[Any], Given] = np.asarray,
        *,
        bounded: bool = True,
    ) -> None:
        self.state_, self.pca, self._check, self.bounded = state, pca, validate, bounded

    def __repr__(self) -> str:
        return (
            f"<PCA with {self._code_width()} components, of the rows that the model was fitted on>"
        )

    def _validate(self, X: object) -> Given:
        return self._check(X)

    def _encode(self, x: Tensor) -> Tensor:
        return self.pca.transform(x.cpu()).to(x.device)

    def _decode(self, z: Tensor) -> Tensor:
        rows = self.pca.inverse_transform(z.cpu()).to(z.device)
        rows = rows.unflatten(1, self.state_.config.shape)
        return within_bounds(self.state_.model, rows) if self.bounded else rows

    def _code_width(self) -> int:
        return len(self.pca.components)

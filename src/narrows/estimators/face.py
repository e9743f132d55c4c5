"""What a representation can be asked, in the user's units, whoever learned it.

``Face`` turns two functions between scaled rows and codes into ``transform``,
``inverse_transform``, ``reconstruct``, ``score`` and ``score_samples``. The estimators have it, and
so has the PCA that stands beside each of them: both are measured by the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.baselines import PCA
from narrows.core import InputError
from narrows.engine.data import Rows, Scaling, inference_batch
from narrows.engine.distributed import shared_out
from narrows.estimators.door import Array, Layout

FAR = 1e15  # standard deviations: beyond, squares leave float32


def as_tensor(rows: Array) -> Tensor:
    """Rows as a tensor that shares their memory where torch can, in a dtype torch computes with."""
    wider = {"u2": np.int32, "u4": np.int64, "u8": np.float64}.get(rows.dtype.str[1:])
    if wider is not None:
        rows = rows.astype(wider)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


class Face:
    """The questions; who answers sets ``layout_``, ``scaling_`` and the methods marked below."""

    layout_: Layout
    scaling_: Scaling

    def _admit(self, X: Any) -> Array:
        """X checked, in the networks' shape."""
        raise NotImplementedError

    def _encode(self, x: Tensor) -> Tensor:
        """Scaled rows → codes."""
        raise NotImplementedError

    def _decode(self, z: Tensor) -> Tensor:
        """Codes → scaled rows."""
        raise NotImplementedError

    def _n_codes(self) -> int:
        """The width of a code."""
        raise NotImplementedError

    def _scaled(self, rows: Array, first: int = 0) -> Iterator[Tensor]:
        step = inference_batch(self.layout_.shape)
        for start in range(0, len(rows), step):
            part = as_tensor(rows[start : start + step]).to(self.scaling_.shift.device)
            x = self.scaling_.apply(part)
            far = (~(x.abs() < FAR)).flatten(1).any(1).nonzero()
            if len(far):
                row = first + start + int(far[0])
                raise InputError(
                    f"Row {row} of X is too far from what the model was fitted on "
                    f"to be a number in float32 once scaled; drop it, or fit on rows like it."
                )
            yield x

    def _decoded(self, x: Tensor) -> Tensor:
        return self._decode(self._encode(x)).view_as(x)

    def _answers(self, X: Any, answer: Callable[[Tensor], Array]) -> Array:
        """``answer`` of every scaled row; in a group of processes each does its share."""

        def work(rows: Array, first: int) -> Array:
            return np.concatenate([answer(x) for x in self._scaled(rows, first)])

        return shared_out(self._admit(X), work, inference_batch(self.layout_.shape))

    @torch.no_grad()
    def transform(self, X: Any) -> NDArray[np.float32]:
        """The codes of X: z = f(x), without noise.

        Parameters
        ----------
        X : array of shape (n, \\*input_shape_)
            In the user's units.

        Returns
        -------
        Z : array of shape (n, latent_dim), float32
        """
        return self._answers(X, lambda x: self._encode(x).float().cpu().numpy())

    @torch.no_grad()
    def inverse_transform(self, Z: Any) -> Array:
        """What codes stand for: x' = g(z), in the user's units, shape and dtype.

        Integers are rounded and kept within their dtype.
        """
        Z = _checked_codes(Z, self._n_codes())
        step = inference_batch(self.layout_.shape)
        return np.concatenate(
            [
                self._outward(self._decode(torch.from_numpy(Z[i : i + step]).to(self._device)))
                for i in range(0, len(Z), step)
            ]
        )

    @property
    def _device(self) -> torch.device:
        return self.scaling_.shift.device

    def _outward(self, scaled: Tensor, dtype: str | None = None) -> Array:
        shaped = scaled.reshape(len(scaled), *self.layout_.shape)
        return self.layout_.outward(self.scaling_.undo(shaped).cpu().numpy(), dtype)

    @torch.no_grad()
    def reconstruct(self, X: Any) -> Array:
        """g(f(x)): X through the code and back; ``inverse_transform(transform(X))``."""
        return self._answers(X, lambda x: self._outward(self._decoded(x)))

    @torch.no_grad()
    def score(self, X: Any, y: Any = None) -> float:
        """The pooled R² of the reconstruction in the user's units; 1 is perfect.

        1 − Σ (x − x')² / Σ (x − x̄)² over all rows and elements, x̄ the mean of each element.
        """
        rows = self._admit(X)
        weight = self.scaling_.scale / self.scaling_.scale.max()  # 1e300² would be no number
        residual, square, first = 0.0, 0.0, None
        sums = torch.zeros((), dtype=torch.float64, device=self._device)
        for x in self._scaled(rows):
            error = (x.double() - self._decoded(x)) * weight
            residual += float(error.square().sum())
            # spread does not depend on a shift; about the first row, a large mean cannot drown it
            first = x[0].double() if first is None else first
            apart = (x - first) * weight
            sums = sums + apart.sum(0)
            square += float(apart.square().sum())
        total = square - float(sums.square().sum()) / len(rows)
        if total <= 1e-12 * max(square, 1e-300):
            return 1.0 if residual <= 1e-12 * max(square, 1e-300) else 0.0
        return 1.0 - residual / total

    @torch.no_grad()
    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """Minus the mean squared error per element of each row, in scaled units, float64."""

        def score(x: Tensor) -> Array:
            return (x.double() - self._decoded(x)).square().flatten(1).mean(1).cpu().numpy()

        return -self._answers(X, score)

    @torch.no_grad()
    def _per_row(self, X: Any, measure: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
        rows = self._admit(X)
        return torch.cat([measure(x).double().cpu() for x in self._scaled(rows)]).numpy()


@torch.no_grad()
def mean_error(face: Face | None, rows: Rows) -> float | None:
    """Mean squared error per element of scaled rows; None where nobody answers."""
    if face is None:
        return None
    batches = rows.in_order(inference_batch(rows.shape))
    total = sum(float((x - face._decoded(x)).square().sum(dtype=torch.float64)) for x in batches)
    return total / (len(rows) * math.prod(rows.shape))


def _checked_codes(Z: Any, width: int) -> NDArray[np.float32]:
    if hasattr(Z, "detach"):
        Z = Z.detach().cpu().numpy()
    try:
        codes = np.ascontiguousarray(np.asarray(Z), dtype=np.float32)
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
        raise InputError(f"Z contains NaN or infinity in row {bad[0][0]}, column {bad[0][1]}.")
    return codes.copy() if not codes.flags.writeable else codes


class PCABeside(Face):
    """PCA of the same scaled training rows at the same width, asked the same questions."""

    def __init__(self, estimator: Any, pca: PCA) -> None:
        self.estimator, self.pca = estimator, pca
        self.layout_, self.scaling_ = estimator.layout_, estimator.scaling_

    def _admit(self, X: Any) -> Array:
        rows: Array = self.estimator._admit(X)
        return rows

    def _encode(self, x: Tensor) -> Tensor:
        return self.pca.transform(x.cpu()).to(x.device)

    def _decode(self, z: Tensor) -> Tensor:
        return self.pca.inverse_transform(z.cpu()).to(z.device)

    def _n_codes(self) -> int:
        return len(self.pca.components)

"""Rate–distortion curves: their Pareto front, bits at equal quality, and BD-rates.

A curve is a list of points (bits for each element, PSNR in dB), in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

from records import show, table

Point = tuple[float, float]
Curve = Sequence[Point]
MIN_OVERLAP = 1.0  # dB that two curves must have in common


def front(points: Curve) -> list[Point]:
    """The points that no other point beats in both size and quality, smallest first."""
    kept: list[Point] = []
    for rate, psnr in sorted(points, key=lambda p: (p[0], -p[1])):
        usable = rate > 0 and math.isfinite(rate) and math.isfinite(psnr)
        if usable and (not kept or psnr > kept[-1][1]):
            kept.append((rate, psnr))
    return kept


def bits_at(points: Curve, psnr: float) -> float | None:
    """Bits per element at that PSNR, by interpolating the log rate; None outside the curve."""
    log = _between([(p, math.log(r)) for r, p in front(points)], psnr)
    return None if log is None else math.exp(log)


def psnr_at(points: Curve, bits: float) -> float | None:
    """PSNR at ``bits`` per element; None outside the curve."""
    return _between([(math.log(r), p) for r, p in front(points)], math.log(bits))


def _between(knots: list[Point], at: float) -> float | None:
    if len(knots) < 2 or not knots[0][0] <= at <= knots[-1][0]:
        return None
    x, y = zip(*knots, strict=True)
    return float(PchipInterpolator(x, y)(at))


def bd_rate(reference: Curve, other: Curve, min_overlap: float = MIN_OVERLAP) -> float | None:
    """The mean relative difference in bits of the other curve at equal PSNR: −0.2 is a fifth less.

    exp(mean of ln r₂(p) − ln r₁(p)) − 1 over the PSNRs p that both have, ln r being a monotone
    cubic in p (G. Bjøntegaard, "Calculation of average PSNR differences between RD-curves",
    VCEG-M33, 2001, with PCHIP instead of one cubic). None if they have less than ``min_overlap`` dB
    in common.
    """
    fronts = [front(reference), front(other)]
    if any(len(points) < 2 for points in fronts):
        return None
    low = max(points[0][1] for points in fronts)
    high = min(points[-1][1] for points in fronts)
    if high - low < min_overlap:
        return None
    areas = []
    for points in fronts:
        rates, psnrs = zip(*points, strict=True)
        areas.append(float(PchipInterpolator(psnrs, np.log(rates)).integrate(low, high)))
    return math.exp((areas[1] - areas[0]) / (high - low)) - 1


def common(curves: Mapping[str, Curve], names: Sequence[str], count: int = 5) -> list[float]:
    """Whole PSNRs, evenly spread over the range that the named curves share (or over the first)."""
    fronts = [front(curves[name]) for name in names if curves.get(name)]
    fronts = [points for points in fronts if points]
    if not fronts:
        return []
    low = max(points[0][1] for points in fronts)
    high = min(points[-1][1] for points in fronts)
    if high < low:
        low, high = fronts[0][0][1], fronts[0][-1][1]
    return sorted({float(round(p)) for p in np.linspace(math.ceil(low), math.floor(high), count)})


def curve_table(
    curves: Mapping[str, Curve],
    references: Sequence[str],
    psnrs: Sequence[float],
    scale: float = 1.0,
    form: str = ".3f",
) -> str:
    """Bits at each PSNR (times ``scale``) and BD-rates against the references, as Markdown.

    A dash means that a curve does not reach that PSNR.
    """
    lines = []
    for name, points in curves.items():
        bits = [bits_at(points, psnr) for psnr in psnrs]
        cells = [show(None if b is None else b * scale, form) for b in bits]
        compared = [bd_rate(curves.get(r, ()), points) for r in references]
        lines.append([name, *cells, *(percent(c) for c in compared)])
    head = ["", *(f"{p:g} dB" for p in psnrs), *(f"BD-rate to {r}" for r in references)]
    return table(head, lines)


def percent(share: float | None) -> str:
    """For example "−12.3 %"; a dash for None."""
    return "–" if share is None else f"{100 * share:+.1f} %".replace("-", "−")

"""Bits at equal quality and scaled rows, against what can be worked out by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def _module(name: str) -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        if spec is None or spec.loader is None:
            raise ImportError(name)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # a dataclass looks its own module up
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("records", None)
        sys.modules.pop(name, None)
    return module


@pytest.fixture(scope="module")
def curves() -> ModuleType:
    return _module("curves")


CURVE = [(0.1, 28.0), (0.2, 31.0), (0.5, 34.5), (1.0, 38.0)]


def test_half_the_bits_are_a_rate_of_minus_a_half(curves: ModuleType) -> None:
    half = [(rate / 2, psnr) for rate, psnr in CURVE]
    assert curves.bd_rate(CURVE, half) == pytest.approx(-0.5)
    assert curves.bd_rate(half, CURVE) == pytest.approx(1.0)
    assert curves.bd_rate(CURVE, CURVE) == pytest.approx(0.0)


def test_two_straight_lines_by_hand(curves: ModuleType) -> None:
    """ln r is ln 4 · t and ln 2 · t for t from 0 to 1: their means differ by −½ ln 2."""
    reference, other = [(1.0, 30.0), (4.0, 40.0)], [(1.0, 30.0), (2.0, 40.0)]
    assert curves.bd_rate(reference, other) == pytest.approx(2**-0.5 - 1)


def test_only_the_common_qualities_count(curves: ModuleType) -> None:
    """From 35 to 40 dB, t from ½ to 1, the mean of t is ¾: −¾ ln 2."""
    reference, other = [(1.0, 30.0), (4.0, 40.0)], [(2**0.5, 35.0), (2**1.5, 45.0)]
    assert curves.bd_rate(reference, other) == pytest.approx(2**-0.75 - 1)


def test_curves_that_hardly_meet_have_no_rate(curves: ModuleType) -> None:
    assert curves.bd_rate(CURVE, [(0.1, 37.5), (0.2, 45.0)]) is None
    assert curves.bd_rate(CURVE, [(0.1, 30.0)]) is None
    assert curves.bd_rate(CURVE, []) is None


def test_points_that_others_beat_do_not_count(curves: ModuleType) -> None:
    worse = [(0.3, 30.0), (0.2, 30.5), (0.0, 99.0), (0.4, math.nan)]
    assert curves.front([*worse, *CURVE]) == CURVE


def test_bits_and_quality_are_each_others_inverse_at_the_points(curves: ModuleType) -> None:
    for rate, psnr in CURVE:
        assert curves.bits_at(CURVE, psnr) == pytest.approx(rate)
        assert curves.psnr_at(CURVE, rate) == pytest.approx(psnr)
    assert curves.bits_at(CURVE, 40.0) is None
    assert curves.psnr_at(CURVE, 0.01) is None


def test_the_table_has_a_line_for_each_curve(curves: ModuleType) -> None:
    half = [(rate / 2, psnr) for rate, psnr in CURVE]
    names = {"JPEG": CURVE, "ours": half, "far": [(9.0, 60.0), (10.0, 61.0)]}
    psnrs = curves.common(names, ["JPEG", "ours"], 3)
    text = curves.curve_table(names, ["JPEG"], psnrs)
    assert psnrs == [28.0, 33.0, 38.0]
    assert "| ours | 0.050 |" in text
    assert "−50.0 % |" in text
    assert "| far | – | – | – | – |" in text


@pytest.mark.parametrize(
    ("rows", "spread"),
    [
        (np.array([[-26_739], [15_164]], np.int16), 41_903),
        (np.array([[[-128, 127]], [[0, 1]]], np.int8), 255),
        (np.array([[0], [2**63 - 1]], np.int64), 2.0**63),
        (np.array([[5], [3]], np.uint16), 2),
        (np.array([[-60_000.0], [60_000.0]], np.float16), 120_000),
    ],
)
def test_rows_are_scaled_to_0_and_1_whatever_their_dtype(rows: Any, spread: float) -> None:
    sets = _module("sets")
    low, found = sets._range(rows)
    assert found == spread
    ready = sets.Split(rows, low, found).ready
    assert (ready.min(), ready.max(), ready.dtype) == (0, 1, np.float32)

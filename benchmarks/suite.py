"""The twelve sets of ``speed.py --section equal``: what they are, the code's width, the units.

Tables are measured in standard deviations of each column, signals and categories in one common
unit, images in pixels from 0 to 1. Files are ADBench's (github.com/Minqi824/ADBench), searched for
in ``--folder``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Member(NamedTuple):
    """A set of the suite."""

    data: str  # a name of sets.py, or a file
    latent: int
    scale: str
    kind: str


SUITE = {
    "pendigits": Member("28_pendigits.npz", 7, "column", "short table"),
    "magic": Member("22_magic.gamma.npz", 4, "column", "short table"),
    "swiss": Member("swiss", 2, "shared", "short table"),
    "table": Member("table", 6, "column", "tall table"),
    "cover": Member("10_cover.npz", 4, "column", "tall table"),
    "sinus": Member("sinus", 9, "shared", "signals"),
    "chirp": Member("chirp", 4, "shared", "signals"),
    "signals": Member("signals", 9, "shared", "signals"),
    "onehot": Member("onehot", 3, "shared", "one-hot"),
    "digits": Member("digits", 8, "range", "images"),
    "moved-digits": Member("moved-digits", 8, "range", "images"),
    "fashion-mnist": Member("fashion-mnist", 32, "range", "images"),
}
OTHERS = {  # not among the twelve
    "mnist": Member("mnist", 32, "range", "images"),
    "pulse": Member("pulse", 4, "shared", "signals"),
}
SETS = SUITE | OTHERS


def located(data: str, folder: Path) -> str:
    """The file in ``folder``, if ``data`` is a file; FileNotFoundError if it is not there."""
    if not data.endswith(".npz"):
        return data
    if not (folder / data).exists():
        raise FileNotFoundError(f"{data} is not in {folder}: give its folder by --folder")
    return str(folder / data)

"""What to say of data that were compressed: sizes, quality, speed, and what others make of it."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narrows.compression.compare_coders import AS_FAR, Beside, Other, compare, psnr_of
from narrows.compression.format.chunk_methods import AUTOENCODER, CONTEXT, NAMES, RESIDUAL
from narrows.io.write import atomic_write, check_output

if TYPE_CHECKING:
    from narrows.compression.format.pack import Summary

__all__ = ["Facts", "compress_file", "lines"]


@dataclass(frozen=True)
class Facts:
    """A compression that is done.

    Parameters: ``name`` of the file; ``seconds`` it took; ``model`` the bytes that the decoder
    takes in a file; ``levels`` of the model; ``shape`` that of an array, None for images; ``used``
    that the autoencoder was not switched off; ``spread`` the largest minus the smallest number,
    where errors are measured by that; ``stored`` the bytes of the image files that were read.
    """

    name: str
    summary: Summary
    seconds: float
    model: int
    levels: int
    shape: tuple[int, ...] | None
    used: bool = True
    spread: float | None = None
    stored: int | None = None
    beside: Beside | None = None

    @property
    def needed(self) -> bool:
        """Whether decoding needs the model."""
        return any(NAMES[k] in self.summary.methods for k in (AUTOENCODER, RESIDUAL, CONTEXT))

    @property
    def alone(self) -> int:
        """Bytes of the file without the model."""
        return self.summary.coded - self.summary.embedded

    def files_to_pay(self, other: Other) -> int | None:
        """How many such files until file and model take less than the other; None: never."""
        saved = other.nbytes - self.alone
        return math.ceil(max(1, self.model) / saved) if saved > 0 else None


def compress_file(
    codec: Any,
    X: Any,
    out: Any,
    *,
    how: Mapping[str, Any],
    overwrite: bool = False,
    beside_it: str = "sample",
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Facts:
    """Compress X to ``out``, a path or an open stream, and measure what came of it.

    Parameters: ``how`` the wishes, as ``Codec.compress_to`` takes them; ``beside_it`` what of X
    ordinary coders are given: "sample", "all" or "none". A file is there whole or not at all.

    Raises `FileError` where the file may not be written, and what ``compress_to`` raises.
    """
    start = time.perf_counter()
    if isinstance(out, str | Path):
        path = check_output(out, (".narrow",), overwrite=overwrite)
        with atomic_write(path) as place, place.open("wb") as file:
            summary = codec.compress_to(file, X, watch=watch, **how)
    else:
        summary = codec.compress_to(out, X, watch=watch, **how)
        out.flush()
    seconds = time.perf_counter() - start
    others = None
    if beside_it != "none":
        others = compare(codec, X, summary, how, whole=beside_it == "all")
    return Facts(
        str(out) if isinstance(out, str | Path) else "standard output",
        summary,
        seconds,
        # as it is in a file that embeds it
        len(zlib.compress(codec.decoder_.payload.data, 9)),
        codec.decoder_.n_levels,
        tuple(X.shape) if hasattr(X, "shape") else None,
        how.get("autoencoder", True),
        _spread(codec, X, summary),
        _stored(X),
        others,
    )


def _spread(codec: Any, X: Any, summary: Summary) -> float | None:
    """Largest minus smallest number of an array whose white is not known; of no table's columns."""
    from narrows.compression.format.pack import Given, range_of

    columns = len(codec.choices_.scale) > 1
    if summary.mode != "lossy" or summary.pixels or not summary.squares or columns:
        return None
    return None if psnr_of(summary) is not None else range_of([Given(X)])


def _stored(X: Any) -> int | None:
    """Bytes of the image files that X names."""
    from narrows.io.photographs import find_photographs

    if not isinstance(X, Path):
        return None
    return sum(path.stat().st_size for path in (find_photographs(X) if X.is_dir() else [X]))


def lines(facts: Facts) -> list[str]:
    """All that is to be said, a line each."""
    rows = [*_sizes(facts), *_work(facts)]
    width = max(len(name) for name, _ in rows)
    shown = [f"{facts.name}: {_what(facts)}"]
    shown += [f"  {name:<{width}}  {said}" for name, said in rows]
    return shown + _table(facts)


def _what(facts: Facts) -> str:
    summary = facts.summary
    if facts.shape is not None:
        count = " × ".join(f"{side:,}" for side in facts.shape) or "one number"
    else:
        count = f"{summary.items:,} image{'s' * (summary.items != 1)}, {summary.pixels:,} pixels"
    kinds = ", ".join(sorted(summary.dtypes))
    wish = {
        "lossy": f"lossy, level {summary.level} of 0 to {facts.levels - 1}",
        "bounded": f"no element further off than {summary.error or 0:.6g}",
        "lossless": "lossless",
    }[summary.mode]
    return f"{count}, {kinds}; {wish}"


def _sizes(facts: Facts) -> list[tuple[str, str]]:
    summary = facts.summary
    files = "" if facts.stored is None else f" ({facts.stored:,} as the files that were read)"
    rows = [
        ("original", f"{summary.original:,} bytes{files}"),
        ("file", f"{summary.coded:,} bytes{_times(facts, summary.coded)}"),
        ("made of", _parts(facts)),
    ]
    if summary.elements:
        rows.append(("rate", _rate(facts)))
    rows.append(("quality", _quality(facts)))
    return rows


def _parts(facts: Facts) -> str:
    summary = facts.summary
    parts = {"payload": summary.payload}
    if facts.needed:
        rest = summary.payload - summary.codes
        parts = {"codes of the autoencoder": summary.codes, "rest of the payload": rest}
    parts["header and frames"] = summary.coded - summary.payload - summary.embedded
    if summary.embedded:
        parts["model"] = summary.embedded
    return ", ".join(f"{name} {nbytes:,}" for name, nbytes in parts.items())


def _times(facts: Facts, nbytes: int) -> str:
    ratio = facts.summary.original / nbytes
    if not ratio:
        return ""
    return f", {ratio:.4g} × smaller" if ratio > 1 else f", {1 / ratio:.3g} × larger"


def _rate(facts: Facts) -> str:
    summary = facts.summary
    bits = 8 * facts.alone
    said = f"{bits / summary.elements:.4g} bits a number"
    if summary.pixels and summary.pixels != summary.elements:
        said = f"{bits / summary.pixels:.4g} bits a pixel, {said}"
    return said + (" (without the model)" if summary.embedded else "")


def _quality(facts: Facts) -> str:
    summary = facts.summary
    if summary.mode == "lossless":
        return "bit for bit"
    worst = f"largest error {summary.largest_error:.6g}"
    if summary.mode == "bounded":
        return f"{worst}, of {summary.error or 0:.6g} allowed"
    psnr, peak = psnr_of(summary), "white"
    if psnr is None and facts.spread:
        psnr, peak = psnr_of(summary, facts.spread), f"the range, {facts.spread:.4g}"
    if psnr is None:
        return f"{worst}, root mean square {math.sqrt(summary.mse):.4g}"
    return f"PSNR {psnr:.2f} dB (the peak is {peak}), {worst}"


def _work(facts: Facts) -> list[tuple[str, str]]:
    summary = facts.summary
    won = [f"{name} {count:,}" for name, count in summary.methods.most_common()]
    rows = [("chunks", ", ".join(won) or "none")]
    if facts.used and summary.mode != "lossy" and summary.without:
        said = f"{summary.without:,} bytes of payload"
        more = summary.without / max(1, summary.payload) - 1
        said += f", {100 * more:.3g} % more" if more > 0 else ": it is of no use here"
        rows.append(("autoencoder off", said))
    rows += _model(facts) if facts.used else []
    speed = summary.original / max(facts.seconds, 1e-9) / 1e6
    return [*rows, ("speed", f"{speed:.3g} MB/s, {facts.seconds:.1f} s")]


def _model(facts: Facts) -> list[tuple[str, str]]:
    """Its bytes, and how many files they are worth it."""
    where = "in the file" if facts.summary.embedded else "not in the file"
    said = f"{facts.model:,} bytes, {where}"
    if not facts.needed:
        return [("model", f"{said}; decoding does not need it")]
    best = None if facts.beside is None else facts.beside.best(ordinary=True)
    if best is None:
        return [("model", said)]
    count = facts.files_to_pay(best)
    if count is None:
        pays = f"never, against {best.name}"
    else:
        files = "this file alone" if count == 1 else f"{count:,} such files"
        pays = f"for itself with {files}, counted once, against {best.name}"
    return [("model", said), ("it pays", pays)]


def _table(facts: Facts) -> list[str]:
    beside = facts.beside
    if beside is None or not facts.summary.original:
        return []
    if not beside.others:
        return ["nothing stands beside it: no ordinary coder takes these data at this quality."]
    name = "this file without its model" if facts.summary.embedded else "this file"
    rows = [Other(name, facts.alone, beside.quality)]
    if facts.needed:
        both = facts.alone + facts.model
        rows.append(Other("this file and the model", both, beside.quality))
    every = sorted([*rows, *beside.others], key=lambda other: other.nbytes)
    width = max(len(other.name) for other in every)
    sample = f", judged by {beside.sample}" if beside.sample else ""
    about = any(other.quality == AS_FAR for other in beside.others)
    head = (
        f"beside it, at {'about the same squared error' if about else 'no less quality'}{sample}:"
    )
    shown = [head, f"  {'':<{width}}  {'bytes':>14}  {'× smaller':>9}"]
    for other in every:
        ratio = facts.summary.original / max(1, other.nbytes)
        shown.append(
            f"  {other.name:<{width}}  {other.nbytes:>14,}  {ratio:>9.2f}  {other.quality}".rstrip()
        )
    return [*shown, _verdict(facts, beside)]


def _verdict(facts: Facts, beside: Beside) -> str:
    best = beside.best()
    if best is None:
        return "None of the others reaches this quality."
    if best.nbytes < facts.alone:
        return (
            f"{best.name} is smaller: {100 * (1 - best.nbytes / facts.alone):.3g} % less than this "
            "file."
        )
    said = f"This file is {100 * (1 - facts.alone / best.nbytes):.3g} % smaller than {best.name}"
    ordinary = beside.best(ordinary=True)
    if facts.needed and ordinary is not None and ordinary.nbytes < facts.alone + facts.model:
        return f"{said}; with the model counted, {ordinary.name} is smaller."
    return f"{said}, the best of the others."

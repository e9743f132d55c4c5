"""The tables of ``results/compression.md``, from the rows of ``compression.py``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from curves import bits_at, common, curve_table, percent, psnr_at
from records import Book, Row, footnote, groups, show, table

OURS, OFF, PCA = "narrows", "narrows, autoencoder off", "PCA, same coder"
BOUNDED = (OURS, OFF, "SZ3", "ZFP", "SPERR", "rounded, xz")
TITLES = {
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "digits": "MNIST, 10,000 images",
    "photograph": "a grey photograph of 2048 × 2048",
    "waves": "a float32 array of 32 MiB",
}
HEAD = (
    "# Compression\n\nSizes are of whole files, in bits for each number of the data unless a table "
    'says otherwise; the model\'s own bytes stand apart. "Autoencoder off" is the same program '
    'without a model (on curves: plain prediction within a largest error); "bits of codes" is what '
    "the autoencoder's codes take of the bits before. "
    "Of a sample, sizes and times are brought up to the whole. Other coders' settings are in "
    "`narrows.compression.other_coders`. Written by `benchmarks/compression.py`. A single seed.\n"
)


def write_table(book: Book) -> None:
    """Write ``compression.md`` from the last rows of each kind."""
    rows = book.rows("section", "data", "mode", "share")
    kept = [row for row in rows if row["section"] != "speed"]
    parts = [HEAD]
    for (mode, data), some in groups(kept, "mode", "data").items():
        if mode == "lossless":
            parts.append(_lossless(data, some))
        if mode == "lossy":
            parts.append(_lossy(data, some))
    bounded = [row for row in kept if row["mode"] == "bounded"]
    parts += [_bounded(bounded), _speed([row for row in rows if row["section"] == "speed"])]
    book.write("\n".join(filter(None, [*parts, footnote(rows)])))


def title(data: str) -> str:
    return TITLES.get(data, data)


def _codes(row: Row) -> str:
    """Bits of codes per number; a dash for other coders."""
    if row.get("code_bytes") is None:
        return "–"
    return show(8 * row["code_bytes"] / row["elements"], ".3f")


def _speed_of(row: Row, key: str) -> str:
    seconds = row.get(key)
    return show(row["original"] / 1e6 / seconds if seconds else None, ".3g")


def _model(row: Row) -> str:
    """Kilobytes of the model."""
    size = row.get("model_bytes")
    return f"{size / 1e3:.0f}" if size else "–"


def _lossless(data: str, rows: Sequence[Row]) -> str:
    """One line for each method, the smallest first."""
    lines = [
        [
            f"**{row['method']}**" if row["method"] == OURS else row["method"],
            f"{row['bits']:.3f}",
            f"{row['nbytes']:,}",
            _codes(row),
            _model(row),
            _speed_of(row, "seconds"),
            _speed_of(row, "decode_seconds"),
        ]
        for row in sorted(rows, key=lambda row: row["bits"])
    ]
    head = ["", "bits", "bytes", "bits of codes", "model, kB", "MB/s to encode", "to decode"]
    return f"## {title(data)}, lossless\n\n{_learned(rows)}" + table(head, lines)


def _learned(rows: Iterable[Row]) -> str:
    """The seconds of training, and how many chunks each method coded."""
    ours = next((row for row in rows if row["method"] == OURS), None)
    if ours is None:
        return ""
    won = ", ".join(f"{name} {count}" for name, count in sorted(ours["won"].items()))
    return f"{ours['fit_seconds']:.0f} s of learning; chunks by what coded them: {won}.\n\n"


def _lossy(data: str, rows: Sequence[Row]) -> str:
    """Bits at equal PSNR, BD-rates, and each level of the codec compared with PCA."""
    curves = {
        name: [(row["bits"], row["psnr"]) for row in some if row["psnr"] is not None]
        for (name,), some in groups(rows, "method").items()
    }
    jpegs = [name for name in curves if name.startswith("JPEG,")]
    psnrs = common(curves, [OURS, PCA], 6)
    each = rows[0]["elements"] / rows[0]["count"]
    small = each <= 4096
    unit = "bits for an image" if small else "bits for each number"
    scale, form = (each, ".1f") if small else (1.0, ".3f")
    text = curve_table(curves, [PCA, *jpegs], psnrs, scale, form)
    return (
        f"## {title(data)}, lossy\n\n{_learned(rows)}{unit[0].upper()}{unit[1:]} at equal PSNR (a "
        "dash: out of its reach), and how many more it takes on average than others at the PSNRs "
        f"both reach:\n\n{text}\n{_levels(curves, rows, scale, form)}"
    )


def _levels(
    curves: dict[str, list[tuple[float, float]]], rows: Sequence[Row], scale: float, form: str
) -> str:
    """Each level of the codec, and PCA at its PSNR and at its size."""
    ours = sorted((r for r in rows if r["method"] == OURS), key=lambda row: row["bits"])
    pca, lines = curves.get(PCA, []), []
    for row in ours:
        bits, quality = bits_at(pca, row["psnr"]), psnr_at(pca, row["bits"])
        codes = 8 * row["code_bytes"] / row["elements"]
        lines.append(
            [
                show(row["bits"] * scale, form),
                show(codes * scale, form),
                f"{row['psnr']:.2f}",
                show(None if bits is None else bits * scale, form),
                percent(None if bits is None else row["bits"] / bits - 1),
                show(quality, ".2f"),
                _model(row),
                _speed_of(row, "seconds"),
                _speed_of(row, "decode_seconds"),
            ]
        )
    head = ["bits", "of codes", "PSNR", "PCA's bits there", "against it", "PCA's PSNR at the bits"]
    head += ["model, kB", "MB/s to encode", "to decode"]
    return table(head, lines) if lines else ""


def _bounded(rows: Sequence[Row]) -> str:
    """How many times smaller at each bound; what broke it is marked."""
    if not rows:
        return ""
    lines = []
    for (data, share), some in groups(rows, "data", "share").items():
        by = {row["method"]: row for row in some}
        ours = by.get(OURS)
        if ours is None:
            continue
        cells = [_ratio(by.get(method)) for method in BOUNDED]
        best = max(range(len(cells)), key=lambda i: float(cells[i].split()[0].replace("–", "0")))
        cells[best] = f"**{cells[best]}**"
        counted = ours["original"] / (ours["nbytes"] + ours["model_bytes"])
        carried = ours["code_bytes"] / ours["nbytes"]
        more = [f"{counted:.1f}", f"{100 * carried:.0f} %"]
        lines.append([data, f"{share:g}", *cells, *more, _speed_of(ours, "seconds")])
    head = ["", "bound", *BOUNDED, "with the model", "of it codes", "MB/s to encode"]
    return (
        "## Arrays within a largest error\n\nHow many times smaller the file is, at bounds that "
        "are shares of the data's range; \"with the model\" counts the model's bytes to the file. "
        "An ! marks a coder that broke the bound; ZFP is often far more exact than it was asked to "
        "be.\n\n" + table(head, lines)
    )


def _ratio(row: Row | None) -> str:
    if row is None:
        return "–"
    broken = row["max_error"] > 1.0001 * row["bound"]  # a hair is the rounding of the comparison
    return f"{row['original'] / row['nbytes']:.1f}" + (" !" if broken else "")


def _speed(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = [
        [
            title(row["data"]),
            row["mode"],
            row["method"],
            f"{row['bits']:.3f}",
            _speed_of(row, "seconds"),
            _speed_of(row, "decode_seconds"),
        ]
        for row in rows
    ]
    head = ["", "", "", "bits", "MB/s to encode", "to decode"]
    threads = sorted({row["threads"] for row in rows})
    words = f"narrows with {' or '.join(map(str, threads))} threads; others with one"
    return f"## Speed\n\n{words}; MB are of the data as they were.\n\n" + table(head, lines)

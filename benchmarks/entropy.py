"""The entropy coder and constriction: speed, bytes above the entropy, detected damage.

    python benchmarks/entropy.py                 # rows of constriction only if it is installed
    python benchmarks/entropy.py --quick         # a test that it runs

Symbols are drawn from known tables, one for all symbols or one of 32 for each, and coded with
these. "Grouped" is constriction's fast way: symbols are sorted by table and each group is coded at
once. It needs the table of every symbol before decoding, which is not known if tables depend on
contexts. Rows go to ``results/entropy.jsonl``, the table to ``results/entropy.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from narrows.compression.format.entropy_coder import (
    HEAD,
    TOTAL,
    Decoder,
    Encoder,
    Tables,
    frequencies_of,
)
from narrows.exceptions import Corrupt
from records import HERE, Book, Row, footnote, groups, median, show, table

Array = Any
WAYS = ("narrows", "constriction", "constriction, grouped")
FLIPS = 400
KEYS = ("way", "tables", "symbols", "n", "lanes_asked")


class Ours:
    """narrows.compression.format.entropy_coder."""

    def __init__(self, tables: Tables, index: Array, lanes: int | None = None) -> None:
        self.tables, self.index, self.lanes = tables, index, lanes

    def encode(self, symbols: Array) -> bytes:
        encoder = Encoder()
        encoder.put_symbols(symbols, self.tables, self.index)
        return encoder.finish(self.lanes)

    def decode(self, data: bytes, n: int) -> Array:
        decoder = Decoder(data)
        symbols = decoder.get(n, self.tables, self.index)
        decoder.finish()
        return symbols


def constriction() -> tuple[Any, Any]:
    """Its models and its coder, which are attributes and cannot be imported from."""
    library = importlib.import_module("constriction")
    return library.stream.model, library.stream.stack.AnsCoder


class Theirs:
    """constriction's ANS coder; by itself it does not check that all data were used."""

    checks = True

    def __init__(self, tables: Tables, index: Array) -> None:
        model, self.coder = constriction()
        shares = (tables.frequencies / TOTAL).astype(np.float32)
        self.one = model.Categorical(shares[0], perfect=False) if len(shares) == 1 else None
        self.family = model.Categorical(perfect=False)
        self.shares = shares[index] if self.one is None else shares

    def models(self) -> tuple[Any, ...]:
        return (self.one,) if self.one is not None else (self.family, self.shares)

    def encode(self, symbols: Array) -> bytes:
        coder = self.coder()
        coder.encode_reverse(symbols.astype(np.int32), *self.models())
        return bytes(coder.get_compressed().astype("<u4").tobytes())

    def decode(self, data: bytes, n: int) -> Array:
        coder = self.coder(np.frombuffer(data, "<u4").astype(np.uint32))
        symbols = coder.decode(self.one, n) if self.one else coder.decode(*self.models())
        if self.checks and not coder.is_empty():
            raise Corrupt("something is left")
        return symbols


class Grouped(Theirs):
    """The same, symbols sorted by table first."""

    def __init__(self, tables: Tables, index: Array) -> None:
        (model, self.coder), self.index = constriction(), index
        shares = (tables.frequencies / TOTAL).astype(np.float32)
        self.all = [model.Categorical(share, perfect=False) for share in shares]

    def encode(self, symbols: Array) -> bytes:
        coder = self.coder()
        order = np.argsort(self.index, kind="stable")
        parts = np.split(symbols[order].astype(np.int32), self.ends())
        for one, part in reversed(list(zip(self.all, parts, strict=True))):
            coder.encode_reverse(part, one)
        return bytes(coder.get_compressed().astype("<u4").tobytes())

    def decode(self, data: bytes, n: int) -> Array:
        coder = self.coder(np.frombuffer(data, "<u4").astype(np.uint32))
        sizes = np.diff(self.ends(), prepend=0, append=n)
        parts = [coder.decode(one, int(k)) for one, k in zip(self.all, sizes, strict=True)]
        if self.checks and not coder.is_empty():
            raise Corrupt("something is left")
        out = np.empty(n, np.int32)
        out[np.argsort(self.index, kind="stable")] = np.concatenate(parts)
        return out

    def ends(self) -> Array:
        return np.cumsum(np.bincount(self.index, minlength=len(self.all)))[:-1]


def drawn(n_tables: int, width: int, n: int, seed: int) -> tuple[Tables, Array, Array]:
    """(tables, the table of each symbol, symbols): bell-shaped tables of many widths."""
    rng = np.random.default_rng(seed)
    at = np.arange(width) - width / 2
    scales = np.geomspace(width / 40, width / 4, n_tables + 1)[1:, None]
    tables = Tables(frequencies_of(np.exp(-np.abs(at) / scales) + 1e-6))
    index = rng.integers(0, n_tables, n)
    return tables, index, tables.find(index * TOTAL + rng.integers(0, TOTAL, n))


def seconds(call: Callable[[], Any], times: int) -> float:
    """The least processor time of some."""
    out = []
    for _ in range(times):
        start = time.process_time()  # other work on the machine matters less
        call()
        out.append(time.process_time() - start)
    return min(out)


def noticed(coder: Any, data: bytes, symbols: Array, seed: int) -> Row:
    """One bit flipped at a time: how many raise, and how many give wrong symbols in silence."""
    rng = np.random.default_rng(seed)
    raised = silent = 0
    for bit in rng.choice(8 * len(data), min(FLIPS, 8 * len(data)), replace=False):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            silent += bool((coder.decode(bytes(bad), len(symbols)) != symbols).any())
        except Exception:  # whatever a peer raises counts as noticed
            raised += 1
    return {"flips": min(FLIPS, 8 * len(data)), "raised": raised, "silent": silent}


def damage(coder: Any, data: bytes, symbols: Array, seed: int) -> Row:
    """`noticed`, with and without the check of the end where it is the user's to make."""
    row = noticed(coder, data, symbols, seed)
    if isinstance(coder, Theirs):
        coder.checks = False
        row["silent_unchecked"] = noticed(coder, data, symbols, seed)["silent"]
        coder.checks = True
    return row


def measure(args: argparse.Namespace, way: str, case: tuple[int, int, int], lanes: int) -> Row:
    """One way on one case."""
    n_tables, width, n = case
    tables, index, symbols = drawn(n_tables, width, n, args.seed)
    kind = {"narrows": Ours, "constriction": Theirs, "constriction, grouped": Grouped}[way]
    coder = Ours(tables, index, lanes or None) if kind is Ours else kind(tables, index)
    data = coder.encode(symbols)
    if not (coder.decode(data, n) == symbols).all():
        raise AssertionError(f"{way} does not decode what it encodes")
    ideal = -np.log2(tables.frequencies[index, symbols] / TOTAL).sum() / 8
    row: Row = {"way": way, "tables": n_tables, "symbols": width, "n": n, "lanes_asked": lanes}
    row |= {"seed": args.seed, "bytes": len(data), "ideal_bytes": float(ideal)}
    row |= {"lanes": HEAD.unpack_from(data)[0] if kind is Ours else 1}
    row["encode"] = n / seconds(lambda: coder.encode(symbols), args.times) / 1e6
    row["decode"] = n / seconds(lambda: coder.decode(data, n), args.times) / 1e6
    if n <= args.flip_n:
        row |= damage(coder, data, symbols, args.seed)
    return row | {"versions": versions()}


def versions() -> dict[str, str]:
    """What was measured."""
    found = {"numpy": np.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["constriction"] = importlib.metadata.version("constriction")
    return found


def write_table(book: Book) -> None:
    """``entropy.md`` from the last rows."""
    rows = book.rows(*KEYS)
    lines = []
    for (way, n_tables, width, n, asked), some in groups(rows, *KEYS).items():
        above = median(some, "bytes") - median(some, "ideal_bytes")
        part = above / median(some, "ideal_bytes")
        silent = "–"
        if some[0].get("flips"):
            silent = f"{some[0]['silent']} of {some[0]['flips']}"
        if "silent_unchecked" in some[0]:
            silent += f" ({some[0]['silent_unchecked']} if the end is not checked)"
        lanes = f"{some[0]['lanes']:,}" + (" (asked for)" if asked else "")
        speed = [show(median(some, key)) for key in ("encode", "decode")]
        case = [f"{n_tables}", f"{width}", f"{n:,}"]
        lines.append([*case, way, lanes, *speed, f"{above:,.0f} ({part:.2%})", silent])
    head = ["tables", "symbols", "n", "way", "lanes", "encode, M/s", "decode, M/s"]
    head += ["bytes above the entropy", "bits flipped: silently wrong"]
    lines.sort(key=lambda line: (int(line[0]), int(line[1]), int(line[2].replace(",", ""))))
    book.write("# The entropy coder\n\n" + table(head, lines) + footnote(rows))


def main() -> None:
    """Every way on every case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--flip-n", type=int, default=10_000, help="flip bits of so few symbols")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    sizes, most = (100, 10_000, 1_000_000), 200_000_000
    if args.quick:
        sizes, args.out = (100, 3000), Path(tempfile.mkdtemp())
    book = Book("entropy", args.out)
    ways = WAYS if "constriction" in versions() else WAYS[:1]
    for n_tables in (1, 32):
        for width in (16, 256):
            for n in sizes:
                for way in ways[: 3 if n_tables > 1 else 2]:
                    if way == "constriction" and n_tables > 1 and n * width > most:
                        continue  # a row of probabilities for every symbol: gigabytes
                    asked = (0, 64, 1024) if way == "narrows" and n == sizes[-1] else (0,)
                    for lanes in asked:
                        book.add(measure(args, way, (n_tables, width, n), lanes))
    write_table(book)
    print(f"written to {book.folder}")


if __name__ == "__main__":
    main()

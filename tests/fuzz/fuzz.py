"""Coverage-guided fuzzing of what reads people's files, with atheris (libFuzzer).

    python tests/fuzz/fuzz.py READER [SECONDS]

READER is one of `READERS`. Any exception but those of narrows is a finding: it ends the run, and
the input is kept as ``crash-*`` in the working folder. Inputs that reach new code are collected
only while it runs; ``corpus/`` stays small.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
sys.path.insert(0, str(HERE.parent))
SCRATCH = Path(tempfile.gettempdir())
SUFFIXES = (".png", ".tif", ".jpg", ".bmp", ".gif", ".webp", ".ppm")
SHORT_TABLES = (".csv", ".parquet", ".npy", ".npz", ".csv.gz", ".idx")


def read_model(data: bytes) -> None:
    """A model file: the input is its header, sealed, or if it is no object the whole file."""
    _load(data, "Autoencoder.safetensors")


def read_checkpoint(data: bytes) -> None:
    """A checkpoint, and its run."""
    _load(data, "run.checkpoint")


def _load(data: bytes, name: str) -> None:
    import torch
    from safetensors.torch import load_file, save

    import narrows
    from helpers.small_data import curve
    from narrows.io.safetensors_file import _digest

    path = _written(data, f"fuzzed{Path(name).suffix}")
    original = next(GOLDEN.glob(f"v2-{name}"))
    if data[:1] == b"{":
        text, tensors = data.decode(errors="replace"), load_file(original)
        path.write_bytes(save(tensors, {"narrows": text, "sha256": _digest(text, tensors)}))
    torch.set_num_threads(1)
    narrows.load(path)
    if path.suffix == ".checkpoint":
        narrows.load(original).set_params(checkpoint=path, resume=True).fit(curve())


def read_narrow(data: bytes) -> None:
    """A compressed file; with its checksums made right where its frames can still be told apart."""
    import narrows
    from helpers.mutated_files import seal, split

    for made in (lambda: data, lambda: seal(*split(data)[:2])):
        try:
            sealed = made()
        except Exception:
            return
        with io.BytesIO(sealed) as stream:
            narrows.decompress(stream)


def read_photograph(data: bytes) -> None:
    """A photograph, and a folder of images."""
    from narrows.io.photographs import read_photograph

    suffix = SUFFIXES[data[0] % len(SUFFIXES)] if data else ".png"
    read_photograph(_written(data[1:], f"fuzzed{suffix}"), max_pixels=1 << 20).upright  # noqa: B018 - a property


def read_table(data: bytes) -> None:
    """A table or an array."""
    from narrows.io.read import read

    suffix = SHORT_TABLES[data[0] % len(SHORT_TABLES)] if data else ".csv"
    read(_written(data[1:], f"fuzzed{suffix}"))


READERS: dict[str, Callable[[bytes], None]] = {
    "model": read_model,
    "checkpoint": read_checkpoint,
    "narrow": read_narrow,
    "photograph": read_photograph,
    "table": read_table,
}


def _written(data: bytes, name: str) -> Path:
    path = SCRATCH / name
    path.write_bytes(data)
    return path


def refused_or_read(reader: str, data: bytes) -> None:
    """Give the input to a reader: narrows' own errors are right, any other is a finding."""
    from narrows.exceptions import NarrowsError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            READERS[reader](data)
        except NarrowsError as error:
            assert "\n" not in str(error), f"several lines: {error}"


def seeds(reader: str) -> Iterator[bytes]:
    """The inputs to start from: in the repository, and the headers and files of golden ones."""
    yield from (path.read_bytes() for path in sorted((HERE / "corpus" / reader).glob("*")))
    if reader in ("model", "checkpoint"):
        from safetensors import safe_open

        suffix = ".checkpoint" if reader == "checkpoint" else ".safetensors"
        for path in sorted(GOLDEN.glob(f"v2-*{suffix}")):
            if path.stat().st_size < 8000 or reader == "checkpoint":
                with safe_open(path, "pt") as stream:
                    yield json.dumps(json.loads(stream.metadata()["narrows"])).encode()
    if reader == "narrow":
        files = sorted((GOLDEN / "compressed").glob("*.narrow"))
        yield from (path.read_bytes() for path in files if path.stat().st_size < 1600)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, or put in: what a test without a fuzzer can try."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(3)
        if how == 0 and at < len(out):
            out[at] = rng.randrange(256)
        elif how == 1:
            del out[at : at + rng.choice((1, 3, 20))]
        else:
            out[at:at] = rng.choice(
                (b"0", b"9" * 30, b"-1", b"null", b"\xff\xff\xff\xff", b"[]", b"e9")
            )
    return bytes(out)


def main(reader: str, seconds: int) -> None:
    """Fuzz for so many seconds; ends the process."""
    import atheris

    global SCRATCH
    with tempfile.TemporaryDirectory() as name:
        SCRATCH = Path(name)
        corpus = SCRATCH / "corpus"
        corpus.mkdir()
        for i, data in enumerate(seeds(reader)):
            (corpus / str(i)).write_bytes(data)
        with atheris.instrument_imports(
            include=["narrows", "helpers"], enable_loader_override=False
        ):
            import narrows.compression.decompress_files
            import narrows.io.csv_tables
            import narrows.io.parquet
            import narrows.io.photographs
            import narrows.models.autoencoder  # noqa: F401
        for data in seeds(reader):
            refused_or_read(reader, data)  # imports everything before memory is watched
        flags = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=60", "-rss_limit_mb=3000"]
        atheris.Setup(
            [sys.argv[0], *flags, "-print_final_stats=1", str(corpus)],
            lambda data: refused_or_read(reader, data),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300)

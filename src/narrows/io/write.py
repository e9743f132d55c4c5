"""Rows to files: arrays (.npy, .npz, .csv), one picture (.png) or a folder of pictures.

Nothing is left half written: a file or folder is written under a temporary name in the same folder
and then renamed.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import itertools
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from narrows.exceptions import FileError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

ARRAYS = (".npy", ".npz", ".csv")
PAGES = (".html", ".htm")
PICTURES = (".png", "")  # no suffix: a folder of pictures

IS_WINDOWS = os.name == "nt"
# There these are devices, whatever follows a point: what is written to nul.npy is gone.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)

NUMBERED_PICTURE = re.compile(r"\d+\.png")  # the files in a folder that narrows wrote
SHEET_GAP = 2  # pixels between the pictures of a contact sheet
MIN_TILE = 64  # pixels: small pictures are enlarged on a sheet until a side is about this long


# ------------------------------------------------------------------------------ outputs


def check_output(
    out: str | Path,
    kinds: Sequence[str] = ARRAYS + PICTURES,
    *,
    overwrite: bool = False,
    replaceable: re.Pattern[str] = NUMBERED_PICTURE,
) -> Path:
    """The path ``out``, if one of ``kinds`` (suffixes; "" is a folder) may be written there.

    Of a folder all files are replaced: their names must match ``replaceable``.

    Raises `FileError` if the suffix is another, the folder above is missing or may not be written
    to, or something exists there and ``overwrite`` is false.

    >>> check_output("codes.xlsx", ARRAYS)
    Traceback (most recent call last):
    narrows.exceptions.FileError: ... give a name that ends in .npy, .npz or .csv.
    """
    path = Path(out)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, or that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"Cannot write {str(out)!r}: {reason}; choose another name.") from error
    kind = _kind(out)
    if kind not in kinds:
        folder = ", or a folder (a name that ends in /)" if "" in kinds else ""
        suffixes = listed([kind for kind in kinds if kind])
        raise FileError(f"Cannot write {str(out)!r}: give a name that ends in {suffixes}{folder}.")
    if IS_WINDOWS and DEVICES.fullmatch(path.name.partition(".")[0].rstrip()):
        raise FileError(f"Cannot write {str(out)!r}: Windows reserves that name; choose another.")
    check_folder(path.parent, out)
    held = list(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    if held and not overwrite:
        raise already_exists(path)
    if path.is_file() and kind == "":
        raise FileError(f"{str(path)!r} is a file, not a folder; choose another name.")
    if path.is_dir() and not all(f.is_file() and replaceable.fullmatch(f.name) for f in held):
        raise FileError(
            f"The folder {str(path)!r} holds other things than pictures that narrows wrote, and "
            "overwriting it would remove them; choose another name."
        )
    return path


def _kind(out: str | Path) -> str:
    is_folder = str(out).endswith(("/", os.sep)) or Path(out).is_dir()
    return "" if is_folder else Path(out).suffix.lower()


def check_folder(folder: Path, out: str | Path) -> None:
    """Raise `FileError` unless ``folder``, in which ``out`` is to be written, can be written to."""
    if not folder.is_dir():
        raise FileError(f"Cannot write {str(out)!r}: there is no folder {str(folder)!r}.")
    if not os.access(folder, os.W_OK):
        raise FileError(f"Cannot write {str(out)!r}: {str(folder)!r} may not be written to.")


def already_exists(path: Path) -> FileError:
    """The error for a file that would be overwritten."""
    advice = "choose another name, or give --overwrite (overwrite=True in Python)"
    return FileError(f"{str(path)!r} exists already; {advice}.")


def listed(words: Sequence[str]) -> str:
    """The alternatives in a sentence.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b or c', 'a')
    """
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def temporary_path(path: Path) -> Path:
    """A new hidden name beside ``path``, which no other writer uses: the only rule for such names.

    It begins like ``path`` and names process, thread and a count of this process. At most 130 bytes
    long, it fits wherever the name of ``path`` does not.
    """
    writer = f"{os.getpid()}.{threading.get_native_id()}.{next(_temporary_numbers)}"
    return path.with_name(f"{_temporary_prefix(path)}.{writer}.partial")


_temporary_numbers = itertools.count()


def _temporary_prefix(path: Path) -> str:
    # with a hash of the machine too: process numbers mean nothing on another one
    known = hashlib.sha256(os.fsencode(f"{platform.node()}/{path.name}")).hexdigest()
    return f".{path.name[:20]}.{known[:12]}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``: renamed to ``path`` at the end, or removed."""
    place = temporary_path(path)
    _remove_abandoned(path)
    try:
        yield place
        if place.is_file():
            with place.open("rb+") as file:
                os.fsync(file.fileno())
        # a folder that was there is moved aside, and removed when the new one is there
        before = path.rename(temporary_path(path)) if place.is_dir() and path.is_dir() else None
        try:
            place.replace(path)
        finally:
            if before is not None:
                shutil.rmtree(before) if path.exists() else before.rename(path)
    except OSError as error:
        if error.filename == str(place):
            error.filename = str(path)
        raise
    finally:
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote ``path``."""
    for partial in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}.*.partial"):
        writer = partial.name.removeprefix(_temporary_prefix(path)).split(".")[1]
        if writer.isdigit() and partial.is_file() and not _is_running(int(writer)):
            partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and belongs to someone else
        return True
    return True


# ------------------------------------------------------------------------------ arrays


def write_rows(
    rows: Array,
    out: str | Path,
    *,
    names: Sequence[str] | None = None,
    axes: str | None = None,
    bounds: tuple[float, float] | None = None,
    columns: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``rows`` (n, ...) to ``out``, in the form its suffix names, and return the path.

    Parameters
    ----------
    rows : array (n, ...)
    out : str or Path
        ``.npy`` and ``.npz`` (entry X) keep shape and dtype; ``.csv`` has a row for each sample,
        flattened; ``.png`` is one sheet of all pictures; a name without a suffix is a folder of
        numbered PNGs.
    names : list of str, optional
        The columns of a ``.csv``; default: x0, x1, ...
    axes, bounds
        As `pictures` takes them.
    columns : int, optional
        Pictures in each line of a sheet; default: so many that it is about square.
    overwrite : bool
        Whether ``out`` may exist.

    Raises
    ------
    FileError
        As `check_output` does.
    InputError
        ``out`` is a picture or a folder, and rows are not pictures.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> out = write_rows(np.array([[1, 2], [3, 4]]), folder.name + "/two.csv", names=["a", "b"])
    >>> out.read_text()
    'a,b\\n1,2\\n3,4\\n'
    >>> folder.cleanup()
    """
    import numpy as np

    path, kind = check_output(out, overwrite=overwrite), _kind(out)
    shown = pictures(rows, axes=axes, bounds=bounds) if kind in PICTURES else rows
    with atomic_write(path) as place:
        if kind == "":
            _write_folder(shown, place)
        elif kind == ".csv":
            _write_csv(rows, names, place)
        else:
            with place.open("wb") as file:
                if kind == ".png":
                    _save_png(contact_sheet(shown, columns), file)
                elif kind == ".npy":
                    np.save(file, rows, allow_pickle=False)
                else:
                    np.savez_compressed(file, X=rows)
    return path


def concatenate_to(
    blocks: Iterable[Array], n: int, out: str | Path | None = None, *, overwrite: bool = False
) -> Array:
    """The n rows of ``blocks``, at least one, as one array.

    With ``out``, a name that ends in .npy, each block is written as soon as it is computed, and
    the file is returned, memory-mapped: never more than a block is in memory. Raises `FileError`
    as `check_output` does.

    >>> import numpy as np
    >>> concatenate_to([np.zeros((2, 3)), np.ones((1, 3))], 3).shape
    (3, 3)
    """
    import numpy as np

    if out is None:
        # Filled block by block: numpy.concatenate would need twice the memory.
        whole, done = None, 0
        for block in blocks:
            whole = np.empty((n, *block.shape[1:]), block.dtype) if whole is None else whole
            whole[done : done + len(block)] = block
            done += len(block)
        assert whole is not None
        return whole
    path = check_output(out, (".npy",), overwrite=overwrite)
    # Written, not mapped: on a full disk a write raises an error, a map kills the process.
    with atomic_write(path) as place, place.open("wb") as file:
        for i, block in enumerate(blocks):
            if i == 0:
                write_head(file, (n, *block.shape[1:]), block.dtype)
            file.write(np.ascontiguousarray(block).data)
    mapped: Array = np.load(path, mmap_mode="r")
    return mapped


def write_head(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """The header of a .npy, after which the elements follow in C order."""
    from numpy.lib import format

    header = {"descr": format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    format.write_array_header_1_0(file, header)


def _write_csv(rows: Array, names: Sequence[str] | None, place: Path) -> None:
    import numpy as np

    table = rows.reshape(len(rows), -1)
    if table.dtype == bool:
        table = table.astype(np.uint8)
    if names is None or len(names) != table.shape[1]:
        names = [f"x{i}" for i in range(table.shape[1])]
    with place.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(names)
        # %s: the shortest text that reads back as the same number, for every dtype
        np.savetxt(file, table, fmt="%s", delimiter=",")


# ------------------------------------------------------------------------------ pictures


def _write_folder(shown: Array, place: Path) -> None:
    place.mkdir()
    width = max(4, len(str(len(shown) - 1)))
    for i, picture in enumerate(shown):
        with (place / f"{i:0{width}d}.png").open("wb") as file:
            _save_png(picture, file)


def _save_png(picture: Array, file: BinaryIO) -> None:
    from PIL import Image

    Image.fromarray(picture).save(file, format="PNG")


def pictures(
    rows: Array, *, axes: str | None = None, bounds: tuple[float, float] | None = None
) -> Array:
    """``rows`` as 8-bit pictures, (n, H, W) or (n, H, W, 3).

    Parameters
    ----------
    rows : array (n, ...)
    axes : {"HW", "CHW", "HWC"} or None
        What a row's axes mean; None is HW for three dimensions and CHW for four.
    bounds : (float, float) or None
        The values of black and white; None takes the whole range of an integer or boolean dtype,
        [0, 1] for floats inside it, otherwise the range of ``rows``; of both 0.1 % of the values
        at either end do not count.

    Raises
    ------
    InputError
        Rows are not pictures.

    >>> import numpy as np
    >>> pictures(np.array([[[0.0, 0.5, 1.0]]]))
    array([[[  0, 128, 255]]], dtype=uint8)
    """
    import numpy as np

    shaped: Array = _channels_last(np.asarray(rows), axes)
    if shaped.dtype == np.uint8 and bounds is None:
        return shaped
    low, high = _range(shaped) if bounds is None else bounds
    unit = (shaped.astype(np.float64) - low) / ((high - low) or 1.0)
    shades: Array = np.rint(unit.clip(0, 1) * 255).astype(np.uint8)
    return shades


def _channels_last(rows: Array, axes: str | None) -> Array:
    known = {3: ("HW",), 4: ("CHW", "HWC")}.get(rows.ndim, ())
    axes = axes or next(iter(known), None)
    if axes not in known:
        raise InputError(
            f"Rows of shape {rows.shape[1:]} are not pictures; write them to .npy, .npz or .csv."
        )
    if axes == "CHW":
        rows = rows.transpose(0, 2, 3, 1)
    if rows.ndim == 4 and rows.shape[3] == 1:
        rows = rows[..., 0]
    if rows.ndim == 4 and rows.shape[3] != 3:
        raise InputError(
            f"Pictures have 1 or 3 channels, these {rows.shape[3]}; write them to .npy or .npz."
        )
    return rows


def _range(rows: Array) -> tuple[float, float]:
    import numpy as np

    if rows.dtype == bool:
        return 0.0, 1.0
    if rows.dtype.kind == "u":
        return 0.0, float(np.iinfo(rows.dtype).max)
    # a single value far outside must not make all others black
    low = float(np.quantile(rows, 0.001, method="lower"))
    high = float(np.quantile(rows, 0.999, method="higher"))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def contact_sheet(shown: Array, columns: int | None = None) -> Array:
    """8-bit pictures (n, H, W[, 3]) side by side on one white sheet, small ones enlarged.

    >>> import numpy as np
    >>> contact_sheet(np.zeros((3, 32, 32), dtype=np.uint8)).shape
    (130, 130)
    """
    import numpy as np

    n, height, width = shown.shape[:3]
    factor = max(1, MIN_TILE // max(height, width))
    tiles = shown.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = columns or min(n, int(np.ceil(np.sqrt(n * height / width))))
    lines = -(-n // columns)
    tall, wide = height * factor + SHEET_GAP, width * factor + SHEET_GAP
    shape = (lines * tall - SHEET_GAP, columns * wide - SHEET_GAP, *shown.shape[3:])
    sheet: Array = np.full(shape, 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * tall, i % columns * wide
        sheet[top : top + tall - SHEET_GAP, left : left + wide - SHEET_GAP] = tile
    return sheet

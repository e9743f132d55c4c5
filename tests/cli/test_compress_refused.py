"""What compress, decompress and inspect refuse, and what they do about damage and early ends."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.command import done, noise, process, refused, run

FULL = Path("/dev/full")
STATUS = {"other": 1, "no": 3, "version": 4, "model": 5, "short": 6, "corrupt": 7, "large": 8}


def test_every_kind_of_wrong_file_has_its_status(
    lossy: Path, codec: Path, photo_codec: Path, tmp_path: Path
) -> None:
    data, bad = lossy.read_bytes(), tmp_path / "bad.narrow"

    def ends(change: bytes, *words: str | Path) -> int:
        bad.write_bytes(change)
        result = run("decompress", bad, "-o", tmp_path / "x.npy", *words)
        assert re.fullmatch(r"narrows: '.*bad.narrow': .*\.\n", result.err), result.err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.narrow"]
        return result.status

    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    assert ends(b"PK" + data, "-m", codec) == STATUS["no"]
    assert ends(data[:8] + b"\x09" + data[9:], "-m", codec) == STATUS["version"]
    assert ends(data) == STATUS["model"]
    assert ends(data, "-m", photo_codec) == STATUS["model"]
    assert ends(data[:-1], "-m", codec) == STATUS["short"]
    assert ends(data[: len(data) // 2], "-m", codec) == STATUS["short"]
    assert ends(bytes(flipped), "-m", codec) == STATUS["corrupt"]
    assert ends(data + b"x", "-m", codec) == STATUS["corrupt"]
    assert ends(data, "-m", codec, "--max-bytes", "9k") == STATUS["large"]
    bad.write_bytes(data[:-1])
    assert run("inspect", bad).status == STATUS["short"]


def test_what_makes_no_sense_is_refused_at_the_door(
    lossy: Path, codec: Path, place: Path, digits: Path, tmp_path: Path
) -> None:
    X, out = place / "X.npy", tmp_path / "x.narrow"
    assert "exclude" in refused("compress", codec, X, "-o", out, "--lossless", "--max-error", "1")
    assert "--quality" in refused("compress", codec, X, "-o", out, "--lossless", "--quality", "1")
    assert "--no-autoencoder" in refused("compress", codec, X, "-o", out, "--no-autoencoder")
    assert "max_error" in refused("compress", codec, X, "-o", out, "--max-error", "some")
    assert "from -3 to 3" in refused("compress", codec, X, "-o", out, "--quality", "9")
    assert ".narrow" in refused("compress", codec, X, "-o", tmp_path / "x.zip")
    assert "--model codec" in refused("compress", digits, X, "-o", out)
    np.save(place / "other.npy", np.zeros((5, 7), np.uint8))
    assert "(n, 8, 8)" in refused("compress", codec, place / "other.npy", "-o", out)
    assert "does not exist" in refused("compress", codec, tmp_path / "no.npy", "-o", out)
    assert "no size" in refused("decompress", lossy, "-o", tmp_path / "x", "--max-bytes", "many")
    assert "no codec" in refused("decompress", lossy, "-m", digits, "-o", tmp_path / "x.npy")
    assert "does not exist" in refused("decompress", out, "-o", tmp_path / "x.npy")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(lossy: Path, codec: Path, place: Path) -> None:
    before = lossy.read_bytes()
    assert "--overwrite" in refused("compress", codec, place / "X.npy", "-o", lossy)
    words = ("decompress", lossy, "-m", codec, "-o", place / "X.npy")
    assert "--overwrite" in refused(*words)
    assert lossy.read_bytes() == before


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("encode", ("X.npy", "-o", "o.npy")),
        ("reconstruct", ("X.npy", "-o", "o.npy")),
        ("report", ("X.npy", "-o", "o.html")),
        ("sample", ("-o", "o.npy")),
    ],
)
def test_other_verbs_send_a_codec_on(verb: str, words: tuple[str, ...], codec: Path) -> None:
    assert "Codec (for `narrows compress`)" in refused(verb, codec, *words)


def test_info_tells_of_it(codec: Path) -> None:
    assert "bits per number" in done("info", codec)


# ------------------------------------------------------------------ damage and early ends


def test_salvage_keeps_what_is_good(pieces: Path, tmp_path: Path) -> None:
    data = bytearray(pieces.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bad.narrow").write_bytes(data)
    out = tmp_path / "x.npy"
    result = run("decompress", tmp_path / "bad.narrow", "-o", out)
    assert result.status == STATUS["corrupt"]
    assert "--salvage" in result.err
    assert not out.exists()
    result = run("decompress", tmp_path / "bad.narrow", "-o", out, "--salvage")
    assert result.status == STATUS["corrupt"]
    first, last = map(int, re.search(r"item 0, rows (\d+) to (\d+)", result.err).groups())  # type: ignore[union-attr]
    found, x = np.load(out), noise()
    assert 0 < first <= last < len(x) - 1
    assert not found[first : last + 1].any()
    for rows in (slice(None, first), slice(last + 1, None)):
        np.testing.assert_array_equal(found[rows], x[rows])


def test_salvage_of_what_is_whole_is_no_damage(lossy: Path, codec: Path, tmp_path: Path) -> None:
    done("decompress", lossy, "-m", codec, "-o", tmp_path / "x.npy", "--salvage")


def test_an_image_that_is_lost_is_named(packed: Path, photo_codec: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "p.narrow", tmp_path / "back"
    data = bytearray(packed.read_bytes())
    place = data.index(b'"name":"b.png"')
    data[place] ^= 1
    out.write_bytes(data)
    result = run("decompress", out, "-m", photo_codec, "-o", back, "--salvage")
    assert result.status == STATUS["corrupt"]
    assert "lost: item 2" in result.err
    assert not (back / "b.png").exists()
    assert len(list(back.rglob("*.*"))) == 6


def test_stopping_leaves_nothing_behind(
    lossy: Path, codec: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("narrows.compression.format.pack.encode_chunk", stop)
    monkeypatch.setattr("narrows.compression.format.pack.decode_chunk", stop)
    for words in (
        ("compress", codec, place / "X.npy", "-o", tmp_path / "x.narrow"),
        ("decompress", lossy, "-m", codec, "-o", tmp_path / "x.npy"),
        ("decompress", lossy, "-m", codec, "-o", tmp_path / "x"),
    ):
        assert run(*words).status == 130
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(pieces: Path, tmp_path: Path) -> None:
    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    made = process("decompress", str(pieces), "-o", "x.npy", cwd=tmp_path, preexec_fn=small)
    assert made.returncode == STATUS["other"]
    assert made.stderr == "narrows: File too large: x.npy.\n"
    assert list(tmp_path.iterdir()) == []
    if FULL.exists():
        with FULL.open("wb") as full:
            command = [sys.executable, "-m", "narrows", "decompress", str(pieces), "-o", "-"]
            ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == STATUS["other"]
        assert ended.stderr.count("\n") == 1

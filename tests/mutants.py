"""Plants known defects, one at a time, and shows that the test meant for each then fails.

    python tests/mutants.py [NN ...]

Each ``tests/mutants/NN.toml`` names a defect that shipped in another library: the file and the text
to replace, what with, and the test. The sources are copied; nothing here is changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "mutants"


def run(tree: Path, test: str) -> tuple[int, str]:
    """The status of one test on a tree's own sources, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "", test],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def plant(tree: Path, mutant: dict[str, str]) -> None:
    """Put the defect in; its text must be there exactly once."""
    path = tree / mutant["file"]
    text = path.read_text(encoding="utf-8")
    if text.count(mutant["old"]) != 1:
        raise SystemExit(f"{mutant['file']} holds this {text.count(mutant['old'])} times, not "
                         f"once:\n{mutant['old']}")  # fmt: skip
    path.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")


def judge(tree: Path, path: Path) -> str | None:
    """What is wrong with a mutant's test; None where it passes without and fails with it."""
    mutant = tomllib.loads(path.read_text(encoding="utf-8"))
    whole = (tree / mutant["file"]).read_text(encoding="utf-8")
    status, said = run(tree, mutant["test"])
    if status != 0:
        return f"fails without the defect:\n{said[-2000:]}"
    plant(tree, mutant)
    status, said = run(tree, mutant["test"])
    (tree / mutant["file"]).write_text(whole, encoding="utf-8")
    if status == 0:
        return "passes with the defect planted"
    # 1 is pytest's word for a test that failed; anything else is no answer
    return None if status == 1 else f"could not be run (status {status}):\n{said[-2000:]}"


def main(names: list[str]) -> int:
    """Judge every mutant, or those named; the status is how many went unseen."""
    paths = sorted(p for p in FOLDER.glob("*.toml") if not names or p.stem in names)
    unseen = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        for part in ("src", "tests", "pyproject.toml"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            (tree / part).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / part, tree / part)
        for path in paths:
            wrong = judge(tree, path)
            unseen += wrong is not None
            defect = tomllib.loads(path.read_text(encoding="utf-8"))["defect"]
            print(f"{path.stem} {'seen' if wrong is None else 'NOT SEEN'}: {defect}", flush=True)
            if wrong is not None:
                print(wrong)
    print(f"{len(paths) - unseen} of {len(paths)} defects are seen by their tests")
    return unseen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

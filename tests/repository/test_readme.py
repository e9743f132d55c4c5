"""README keeps its word: its code runs, its table is the benchmark's, its test command is CI's."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_python_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert blocks
    checks = "\nassert Z.shape == (1797, 8) and X2.shape == X.shape and new.shape == (64, 8, 8)"
    checks += "\nassert ae.score(X) > ae.pca_.score(X) and nats.shape == (10,)"
    subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks) + checks],
        cwd=tmp_path,
        check=True,
        env={"OMP_NUM_THREADS": "1", "PATH": ""},
    )


def test_every_figure_of_its_table_is_in_the_benchmarks_output() -> None:
    table = README.split("<!-- results -->")[1].split("<!-- /results -->")[0]
    rows = [line for line in table.splitlines() if re.match(r"\| (digits|mnist|fashion)", line)]
    written = (ROOT / "benchmarks/results/reconstruction.md").read_text(encoding="utf-8")
    assert len(rows) >= 5
    for row in rows:
        assert row in written


def test_every_figure_of_speed_is_in_the_benchmarks_output() -> None:
    table = README.split("<!-- quality -->")[1].split("<!-- /quality -->")[0]
    written = (ROOT / "benchmarks/results/quality.md").read_text(encoding="utf-8")
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) >= 5
    for row in rows:
        assert row in written


def test_its_likelihood_is_in_the_benchmarks_output() -> None:
    told = README.split("<!-- likelihood -->")[1].split("<!-- /likelihood -->")[0]
    (nats,) = re.findall(r"\*\*([\d.]+)\*\*", told)
    written = (ROOT / "benchmarks/results/likelihood.md").read_text(encoding="utf-8")
    assert f"| all test rows | 1,000 | {nats} |" in written


def test_its_test_command_is_the_one_ci_runs() -> None:
    assert "\nmake test " in README
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_what_it_links_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_figure_of_photographs_is_in_the_benchmarks_output() -> None:
    page = (ROOT / "docs/denoising.md").read_text(encoding="utf-8")
    told = page[page.index("## Photographs") :].split("### How well it works")[1]
    written = (ROOT / "benchmarks/results/denoising.md").read_text(encoding="utf-8")
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert len(rows) >= 20
    for row in rows:
        assert row in written


def test_every_figure_of_compression_is_in_the_benchmarks_output() -> None:
    page = (ROOT / "docs/compression.md").read_text(encoding="utf-8")
    told = page[page.index("## Figures") :]
    written = (ROOT / "benchmarks/results/compression.md").read_text(encoding="utf-8")
    rows = [line for line in told.splitlines() if line.startswith("|")]
    assert len(rows) >= 40
    for row in rows:
        assert row in written

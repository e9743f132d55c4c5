"""What is imported when: not torch for ``--help``, not torch.compile for a first fit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_structure import MODULES, imports, module_name

HEAVY = {"torch", "sklearn", "scipy", "matplotlib", "pandas", "polars", "pyarrow", "pooch", "zarr"}
HEAVY |= {"skimage", "pywt", "tifffile", "jinja2"}


def at_import(tree: ast.Module) -> Iterator[str]:
    """What importing the module imports: not what functions do, nor what only types need."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []), "")
        for field in ("body", "orelse", "finalbody"):
            todo += getattr(node, field, [])


def light(path: Path) -> bool:
    """Whether the command imports this module before it knows what to do."""
    name = module_name(path)
    return name.startswith(("narrows.cli", "narrows.io.read")) or name in {
        "narrows",
        "narrows.__main__",
        "narrows._types",
        "narrows.exceptions",
        "narrows.io",
        "narrows.training",
        "narrows.estimators",
        "narrows.estimators.registry",
        "narrows.estimators.parameters",
        "narrows.report",
        "narrows.maps",
        "narrows.plot",
    }


@pytest.mark.parametrize("path", [path for path in MODULES if light(path)], ids=module_name)
def test_what_the_command_imports_is_light(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert {name.split(".")[0] for name in at_import(tree)} & HEAVY == set()


QUESTIONS = {
    "import": "import narrows",
    "dir": "import narrows as n; dir(n); n.__version__; dir(n.maps); dir(n.plot)",
    "help": "import narrows.cli; narrows.cli.main(['--help'])",
    "fit help": "import narrows.cli; narrows.cli.main(['fit', '--help'])",
    "models": "import narrows.cli; narrows.cli.main(['models'])",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_nothing_heavy_is_imported_before_it_is_needed(question: str) -> None:
    code = (
        f"import sys\ntry:\n    {question}\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1].strip() == "heavy:"


def test_a_first_fit_does_not_import_what_only_torch_compile_needs() -> None:
    code = (
        "import sys, numpy as np, narrows\n"
        "X = np.random.default_rng(0).normal(size=(60, 8)).astype('f4')\n"
        "for model in (narrows.Autoencoder, narrows.VariationalAutoencoder, narrows.Codec):\n"
        "    model(max_epochs=1).fit(X)\n"
        "print('heavy:', *sorted({'torch._dynamo', 'torch._inductor', 'sympy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1].strip() == "heavy:"

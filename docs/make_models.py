"""Write models.md, the page of all models and their parameters, from the code.

python docs/make_models.py
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

from narrows.estimators.parameters import Parameters, RunParameters
from narrows.estimators.registry import ANY_SIZE, MODELS, SHORT_NAMES, model_class

PAGE = Path(__file__).parent / "models.md"
SHORT = {name: key for key, name in SHORT_NAMES.items()}
HEAD = """# The models

Written from the code by `docs/make_models.py`. Every model also has the shared parameters at the
end of this page. `narrows fit DATA --model NAME` takes each of them with hyphens
(`--latent-dim 8`); `narrows fit --model NAME --help` lists them. Results:
[errors and samples at equal time](../benchmarks/results/models.md),
[log-likelihoods of 500 test images](../benchmarks/results/likelihood.md).
"""


def shown(value: Any) -> str:
    """A default value as Python code."""
    return f"`{value!r}`"


def about(cls: type) -> tuple[str, str]:
    """The first sentence of a class's docstring (the formula), and its source."""
    text = inspect.getdoc(cls) or ""
    first = " ".join(text.split("\n\n")[0].split())
    parts = text.split("Source:")
    source = " ".join(parts[1].split("\n\n")[0].split()) if len(parts) > 1 else ""
    return first, source


def rows(items: list[Any]) -> list[str]:
    """A table of parameters."""
    lines = ["| parameter | default | |", "|---|---|---|"]
    for item in items:
        text = item.metadata.get("help", "").replace("|", "\\|")
        if "choices" in item.metadata:
            text += f" One of {', '.join(map(shown, item.metadata['choices']))}."
        lines.append(f"| `{item.name}` | {shown(item.default)} | {text} |")
    return lines


def page() -> str:
    """The whole page."""
    shared = {item.name for item in fields(Parameters)}
    lines = [HEAD]
    for name in [*MODELS, *ANY_SIZE]:
        cls = model_class(name)
        formula, source = about(cls)
        short = f" (`{SHORT[name]}`)" if name in SHORT else ""
        lines += [f"## {name}{short}", "", formula, ""]
        lines += [f"Source: {source}", ""] if source else []
        own = [item for item in fields(cls) if item.name not in shared]
        lines += [*rows(own), ""] if own else []
    run = {item.name for item in fields(RunParameters)}
    every = [item for item in fields(Parameters) if item.name not in run]
    lines += ["## Parameters of every model for rows of one shape", "", *rows(every), ""]
    lines += ["## How training goes", "", *rows(list(fields(RunParameters))), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

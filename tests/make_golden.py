"""Write the golden files that are missing; run when the format changes or a model comes, commit.

Those that are there stay: they are what an older narrows wrote.
"""

import sys
from pathlib import Path
from typing import Any

from helpers.small_data import TABLES
from narrows.estimators.registry import MODELS
from narrows.io.safetensors_file import FORMAT

sys.path.append(str(Path(__file__).parent / "estimators"))
from test_model_file import CONV, IMAGES, X, small

CRITICS = {"AdversarialAE", "FactorVAE"}  # theirs would outweigh the rest

if __name__ == "__main__":
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    for name in [*MODELS, "conv"]:
        path = folder / f"v{FORMAT}-{name}.safetensors"
        if path.exists():
            continue
        own: dict[str, Any] = {"critic_layer_sizes": (4,)} if name in CRITICS else {}
        if name == "conv":
            model = small(data=IMAGES, **CONV)
        else:
            model = small(name, X if name in TABLES else IMAGES, **own)
        model.save(path)

"""Write the golden files of the present format; run once when the format changes, then commit."""

from pathlib import Path

from narrows.engine.storage import FORMAT
from narrows.estimators.catalogue import MODELS
from test_files import CONV, IMAGES, small

if __name__ == "__main__":
    folder = Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    for name in MODELS:
        small(name).save(folder / f"v{FORMAT}-{name}.safetensors", overwrite=True)
    pictures = small(data=IMAGES, **CONV)
    pictures.save(folder / f"v{FORMAT}-conv.safetensors", overwrite=True)

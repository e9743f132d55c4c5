"""What torchrun says of this process in its environment; read without importing torch."""

import os

LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether torchrun, or something like it, started this process as one of several."""
    return all(name in os.environ for name in LAUNCHER) and os.environ["WORLD_SIZE"] != "1"


def given_rank() -> int:
    """The number of this process among those that were started together; 0 where it is alone."""
    return int(os.environ["RANK"]) if launched() else 0

"""Training: batches, the loop and what surrounds it. Models and objectives are given to it.

This file reads the environment variables of torchrun. It imports no torch, so that the command
finds its rank without waiting for that import.
"""

import os

# What torchrun, or a launcher like it, sets in the environment of each process that it starts.
TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched() -> bool:
    """Whether torchrun, or a launcher like it, started this process as one of several."""
    return all(v in os.environ for v in TORCHRUN_VARIABLES) and os.environ["WORLD_SIZE"] != "1"


def given_rank() -> int:
    """The rank that torchrun gave this process; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched() else 0

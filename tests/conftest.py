"""One thread and one seed for every test: tiny fits are faster so, and no order matters."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile(
    "narrows",
    deadline=None,  # a loaded machine is no bug
    derandomize=True,  # the same examples everywhere: a red test must be red again
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("narrows")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A layer that a test makes with torch's own weights has the same ones in any order."""
    torch.manual_seed(0)

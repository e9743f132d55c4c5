"""One thread for every test: many tiny fits are faster so, and leave the machine to others."""

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

"""Shared fixtures: one Ray cluster a session, and bundled photos."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")

# Before any import of ray: a test must not write tokens to the home directory, nor draw progress bars.
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
)

# A shell starts what it runs in the background deaf to Ctrl-C, and children inherit that; tests interrupt commands.
signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOS = Path(__file__).resolve().parents[1] / "pipelines" / "demo_photos"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tests run side by side; two of them with two threads each on two cores would wait for one another."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photos that the repository bundles, 128x128 JPEGs."""
    return PHOTOS


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """More real images and weights, where a machine has them beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the larger sample data are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray cluster of two CPUs for the whole session."""
    import ray

    ray.init(
        "local",  # by default Ray would join any cluster that it finds on the machine
        num_cpus=2,
        object_store_memory=500_000_000,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="WARNING",
    )
    yield
    ray.shutdown()

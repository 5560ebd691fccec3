"""Shards that the tests of ingest read."""

import pytest

from tests.preparing import prepared, prepared_classes
from tests.synthetic_shards import write_shards


@pytest.fixture(scope="session")
def data(tmp_path_factory, photos, ray_session):
    """60 real photos in small shards."""
    return prepared(photos, tmp_path_factory.mktemp("data"), 60, "8-16", samples_per_shard=8)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, photos, ray_session):
    """40 real photos in two of ImageNet's folders, as base shards."""
    return prepared_classes(photos, tmp_path_factory.mktemp("labelled"), 40, "base-16")


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory):
    """48 random images in six shards, and five in a validation shard; needs no Ray."""
    return write_shards(tmp_path_factory.mktemp("synthetic"), "8-16", [8] * 6, validation=5)

"""Prepared photos that the tests of ingest read."""

import pytest

from tests.preparing import prepared, prepared_classes


@pytest.fixture(scope="session")
def data(tmp_path_factory, photos, ray_session):
    """60 real photos in small shards."""
    return prepared(photos, tmp_path_factory.mktemp("data"), 60, "8-16", samples_per_shard=8)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, photos, ray_session):
    """40 real photos in two of ImageNet's folders, as base shards."""
    return prepared_classes(photos, tmp_path_factory.mktemp("labelled"), 40, "base-16")

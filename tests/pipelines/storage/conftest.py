"""A fresh place on a disk, and one on a real S3 server."""

import pytest

from pipelines.storage import uris


@pytest.fixture(scope="session")
def empty_bucket(s3_server):
    s3_server.create_bucket("empty")
    return f"s3://empty/x?endpoint_override={s3_server.endpoint}"


@pytest.fixture(params=["disk", "bucket"])
def place(request, tmp_path):
    """A fresh folder or prefix."""
    if request.param == "disk":
        return str(tmp_path)
    return uris.join(request.getfixturevalue("empty_bucket"), tmp_path.name)

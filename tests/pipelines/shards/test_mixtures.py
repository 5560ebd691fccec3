"""What the preparations of a mixture are called in tables and columns."""

import pytest

from pipelines.settings.mixtures import read_data
from pipelines.shards.mixtures import data_names


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["data/faces"], ("faces",)),
        (["data/faces", "data/scenes"], ("faces", "scenes")),
        (["a/faces", "b/scenes", "b/faces"], ("faces-0", "scenes", "faces-2")),
        (["a/faces", "b/faces", "c/faces-1"], ("faces-0", "faces-1-1", "faces-1")),
        (["s3://one/faces", "s3://two/faces?endpoint_override=http://host:1"], ("faces-0", "faces-1")),
    ],
)
def test_no_two_have_one_name(folders: list[str], names: tuple[str, ...]) -> None:
    assert data_names(read_data(folders)) == names

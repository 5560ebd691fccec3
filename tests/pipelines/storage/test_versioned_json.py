"""Documents that state their version: their bytes, and the error message for one that cannot be read."""

import pytest

from pipelines.storage.versioned_json import JsonFormat
from sr3core.errors import CheckpointError, DataError, StorageError

FORMAT = JsonFormat(
    title="recipe",
    version=2,
    name="sr3-recipe",
    if_damaged="delete it",
    if_other_version="write it again",
    error=CheckpointError,
)
NAMELESS = JsonFormat(title="index", version=1, if_damaged="delete it", if_other_version="prepare again")


def test_a_document_begins_with_its_header_and_reads_back(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_bytes(FORMAT.encode({"a": [1]}))
    assert path.read_text() == '{\n "format": "sr3-recipe",\n "format_version": 2,\n "a": [\n  1\n ]\n}\n'
    assert FORMAT.read(path) == {"format": "sr3-recipe", "format_version": 2, "a": [1]}
    assert NAMELESS.encode({"a": [1]}, compact=True) == b'{"format_version":1,"a":[1]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format"', "is damaged .*; delete it"),
        ("[]", "is not a recipe: its format is None, not 'sr3-recipe'; delete it"),
        ('{"format": "sr3-run", "format_version": 2}', "is not a recipe: its format is 'sr3-run'"),
        (
            '{"format": "sr3-recipe", "format_version": 3}',
            "has recipe format version 3, this program reads 2; install the newer sr3 that wrote it, or write it again",
        ),
        (
            '{"format": "sr3-recipe", "format_version": 1}',
            "has recipe format version 1, this program reads 2; write it again",
        ),
        ('{"format": "sr3-recipe"}', "has recipe format version None, this program reads 2; write it again"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_remedy(tmp_path, text, message):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=f"recipe.json {message}"):
        FORMAT.read(path)


def test_a_missing_document_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="No such file"):
        FORMAT.read(tmp_path / "recipe.json")


def test_a_missing_key_names_the_document(tmp_path):
    path = tmp_path / "index.json"
    path.write_bytes(NAMELESS.encode({}))
    document = NAMELESS.read(path)
    message = r"index.json is not a valid index \(it lacks 'keys'\); delete it"
    with pytest.raises(DataError, match=message), NAMELESS.decoding(path):
        len(document["keys"])

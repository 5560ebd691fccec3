"""What is written is JSON by the standard, and numbers that are not finite come back."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sr3core import strict_json

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
KEYS = st.text(max_size=5).filter(lambda key: key != strict_json.NOT_FINITE)
NESTED = st.recursive(
    LEAVES, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(KEYS, inside, max_size=3), max_leaves=8
)


def strictly(text: str):
    """Parse as a reader does that knows no NaN."""

    def refuse(constant: str):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@given(st.dictionaries(KEYS, NESTED, max_size=4))
def test_every_document_is_strict_and_comes_back(document):
    text = strict_json.dumps(document)
    strictly(text)
    assert repr(strict_json.loads(text)) == repr(document), "as text, since nan differs from itself"


def test_what_is_not_finite_is_null_and_named():
    text = strict_json.dumps({"step": 7, "loss": math.nan, "rows": [{"a/b": -math.inf}]})
    assert strictly(text) == {
        "step": 7,
        "loss": None,
        "rows": [{"a/b": None}],
        "not_finite": {"/loss": "nan", "/rows/0/a~1b": "-inf"},
    }


def test_finite_documents_are_what_json_writes():
    data = {"b": [1, 2.5, "x"], "a": None}
    assert strict_json.dumps(data) == json.dumps(data)
    assert strict_json.dumps(data, indent=1, sort_keys=True) == json.dumps(data, indent=1, sort_keys=True)
    assert strict_json.dumps(data, separators=(",", ":")) == json.dumps(data, separators=(",", ":"))


def test_lines_of_earlier_versions_are_read():
    assert strict_json.loads('{"loss": Infinity, "norm": -Infinity}') == {"loss": math.inf, "norm": -math.inf}


def test_a_list_has_no_place_for_the_names():
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.dumps([math.nan])

"""`--data a=0.7 b=0.3` as text: read, remembered, and turned into exact shares."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.settings.mixtures import MAX_PERIOD, ROUNDED, DataPart, describe_data, parts_of, read_data, shares_of
from sr3core.errors import ConfigError


def test_one_folder_is_itself_whatever_its_name() -> None:
    for folder in ("data", "/runs/lr=0.1", "s3://bucket/a=b?endpoint_override=http://h:1", "my photos"):
        assert read_data([folder]) == folder
        assert parts_of(folder) == (DataPart(folder),)
        assert describe_data(folder) == folder


def test_a_mixture_is_remembered_as_it_would_be_typed() -> None:
    words = ["/my faces=0.7", "s3://bucket/a=b?endpoint_override=http://h:1=3/10"]
    data = read_data(words)
    assert parts_of(data) == (
        DataPart("/my faces", "0.7"),
        DataPart("s3://bucket/a=b?endpoint_override=http://h:1", "3/10"),
    )
    assert describe_data(data) == "'/my faces=0.7' 's3://bucket/a=b?endpoint_override=http://h:1=3/10'"
    assert parts_of(read_data(["a", "b=c"])) == (DataPart("a"), DataPart("b=c"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a folder"),
        (["a=1", "b"], "b has no weight and others have"),
        (["a=1", "b=0"], "b=0: the weight is not positive"),
        (["a=1", "b=-2"], "not positive"),
        (["a=1", "a=2"], "a is named twice"),
    ],
)
def test_what_cannot_be_mixed_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_data(words)


def test_shares_are_the_smallest_whole_numbers() -> None:
    assert shares_of([Fraction("0.7"), Fraction("0.3")]) == (7, 3)
    assert shares_of([Fraction(2), Fraction(2)]) == (1, 1)
    assert shares_of([Fraction(1), Fraction(1, 3), Fraction(2, 3)]) == (3, 1, 2)


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=6))
def test_any_shares_are_within_one_of_the_period_and_none_is_lost(weights: list[int]) -> None:
    shares = shares_of([Fraction(weight) for weight in weights])
    period, total = sum(shares), sum(weights)
    assert min(shares) >= 1
    assert period <= MAX_PERIOD or period == ROUNDED
    assert all(
        abs(share - Fraction(weight, total) * period) < len(weights)
        for share, weight in zip(shares, weights, strict=True)
    )

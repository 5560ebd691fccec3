"""How the report writes numbers."""

import pytest

from pipelines.report.html_report import environment


@pytest.mark.parametrize(
    ("value", "name", "largest", "text"),
    [
        (36.62, "consistency", 46.4, "36.62"),
        (0.00561, "consistency", 46.4, "0.0056"),  # not 0.01: a projection is a thousand times closer
        (0.5, "distance", 300.0, "0.5"),
        (-0.031, "distance", 72.0, "−0.031"),
        (0.0, "distance", 72.0, "0.00"),
        (1200.4, "distance", None, "1200"),
        (22.123, "psnr", None, "22.12"),
        (0.00004, "kid", 0.2, "0.0000"),
        (None, "psnr", None, "–"),
        (float("nan"), "distance", None, "–"),
        (float("inf"), "psnr", None, "∞"),
    ],
)
def test_a_number_has_the_places_of_its_column_and_two_digits(value, name, largest, text):
    module = environment().get_template("report_macros.html.j2").module
    assert str(module.metric(value, name, largest)) == text  # type: ignore[attr-defined]

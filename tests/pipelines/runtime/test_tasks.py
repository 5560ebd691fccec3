"""Work in tasks gives what it gives here: the same results in the same order, and the same errors."""

import pytest

from pipelines.runtime.tasks import map_in_tasks
from sr3core.errors import DataError


def doubled(number: int) -> int:
    if number < 0:
        raise DataError("negative; give a number that is not")
    return 2 * number


def test_here_and_in_tasks_results_are_in_order_and_errors_are_as_raised(ray_session: str) -> None:
    for count in (0, 1, 40):
        assert list(map_in_tasks(doubled, range(count))) == [2 * n for n in range(count)]
    with pytest.raises(DataError) as caught:
        list(map_in_tasks(doubled, [1, -1, 2]))
    assert str(caught.value) == "negative; give a number that is not"

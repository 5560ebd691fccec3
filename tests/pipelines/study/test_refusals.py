"""How often a client may ask."""

import pytest

from pipelines.study.refusals import RateLimit, Refused


def test_a_rate_limit_lets_a_burst_through_and_then_so_many_a_second():
    now = [0.0]
    limit = RateLimit(2, 5, lambda: now[0])
    for _ in range(5):
        limit.take("a")
    with pytest.raises(Refused) as refused:
        limit.take("a")
    assert refused.value.status == 429
    assert refused.value.retry_after == pytest.approx(0.5)
    limit.take("b")  # everybody has a bucket
    now[0] += 0.5
    limit.take("a")
    with pytest.raises(Refused):
        limit.take("a")

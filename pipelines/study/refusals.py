"""Refused requests, and limits on how often a client may send them."""

import threading
import time
from collections.abc import Callable


class Refused(Exception):  # noqa: N818 - it is a response to a request, not a fault
    """A request that the server refuses.

    Args:
        status: HTTP status.
        code: identifies the reason to the page's script.
        text: the reason in words, for people.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, code: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.retry_after = status, code, text, retry_after


class RateLimit:
    """A token bucket per key: limits the average number of requests per second, and the size of a burst.

    Kept only in memory: after a restart every bucket is full, and no network address is ever stored.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = per_second, burst, clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str) -> None:
        """Count a request.

        Raises:
            Refused: there were too many requests.
        """
        now = self._clock()
        with self._lock:
            level, since = self._buckets.pop(key, (self._burst, now))
            level = min(self._burst, level + (now - since) * self._rate)
            granted = level >= 1
            self._buckets[key] = (level - granted, now)  # at the end, so that the first are those idle longest
            for old in list(self._buckets)[:2]:  # a bucket that is full again need not be kept
                if self._buckets[old][0] + (now - self._buckets[old][1]) * self._rate >= self._burst:
                    del self._buckets[old]
        if not granted:
            wait = (1 - level) / self._rate
            raise Refused(429, "rate", "Too many requests; please wait a moment.", retry_after=wait)

"""Decoding images that may crash their decoder, hang it, or take the machine's memory.

A shard is first written in one process, which any of this ends. Then it is written with a process for each image, and
an image whose process ends is rejected. The limits are the same in both ways, and in the second one no image can harm
another, so which images are rejected depends on the images alone: not on what else was in the process, and not on
whether the first one was killed for another reason.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.runtime.guarded_calls import CallDiedError, CallLimits, IsolatedCalls, call_here
from pipelines.settings.prepare import PrepareConfig

Call = Callable[..., Any]
"""Calls its first argument with the others."""


@contextmanager
def guarded_calls(config: PrepareConfig, isolated: bool) -> Iterator[Call]:
    """Yield what calls decoders under the limits of the configuration.

    Args:
        config: its image_bytes and image_seconds.
        isolated: whether each call has a process of its own. The end of that process is a DecodeError.
    """
    limits = CallLimits(config.image_bytes, config.image_seconds)
    if not isolated:
        yield partial(_call_here, limits)
        return
    with IsolatedCalls(limits) as calls:
        yield partial(_call_isolated, calls, limits)


def _call_here(limits: CallLimits, function: Call, *args: Any) -> Any:
    try:
        return call_here(limits, function, *args)
    except MemoryError:
        pass
    except DecodeError as error:
        if not isinstance(error.__cause__, MemoryError):
            raise
    with IsolatedCalls(limits) as calls:  # threads that read other images took of the memory; alone, it may fit
        return _call_isolated(calls, limits, function, *args)


def _call_isolated(calls: IsolatedCalls, limits: CallLimits, function: Call, *args: Any) -> Any:
    try:
        return calls.call(function, *args)
    except CallDiedError as error:
        raise DecodeError(RejectReason.CRASHED, _describe(error.signal_number, limits)) from error


def _describe(signal_number: int, limits: CallLimits) -> str:
    """How decoding ended, in words that are the same each time."""
    if signal_number == signal.SIGALRM:
        return f"decoding takes more than {limits.seconds:g} s"
    how = f"with {signal.Signals(signal_number).name}" if signal_number else "at once"
    return f"decoding ends the process {how}; {limits.num_bytes} bytes of memory were allowed"

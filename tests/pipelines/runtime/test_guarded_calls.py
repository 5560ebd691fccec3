"""Calls under limits: what a call returns or raises comes back, and what ends its process is known to be its doing."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.runtime.guarded_calls import CallDiedError, CallLimits, IsolatedCalls, call_here
from tests.commands import ROOT

LIMITS = CallLimits(1 << 28, 60.0)
HANG = """
import ctypes
from pipelines.runtime.guarded_calls import CallLimits, call_here
call_here(CallLimits(1 << 30, 0.2), ctypes.PyDLL(None).sleep, 3600)
"""


def double(data: bytes) -> bytes:
    return 2 * data


def refuse() -> None:
    raise DecodeError(RejectReason.CORRUPT, "of no use")


def read_address_zero() -> None:
    ctypes.string_at(0)


def keep_the_gil() -> None:
    ctypes.PyDLL(None).sleep(3600)


def allocate() -> int:
    return len(bytearray(1 << 29))


def leave() -> None:
    os._exit(3)


@pytest.fixture
def calls() -> Iterator[IsolatedCalls]:
    with IsolatedCalls(LIMITS) as calls:
        yield calls


def test_results_and_exceptions_come_back_from_both(calls: IsolatedCalls) -> None:
    for call in (calls.call, lambda *args: call_here(LIMITS, *args)):
        assert call(double, bytes(1 << 22)) == bytes(1 << 23)
        with pytest.raises(DecodeError, match="of no use") as caught:
            call(refuse)
        assert caught.value.reason is RejectReason.CORRUPT


def test_memory_beyond_the_limit_is_an_exception_in_both_and_allowed_afterwards(calls: IsolatedCalls) -> None:
    for call in (calls.call, lambda *args: call_here(LIMITS, *args)):
        with pytest.raises(MemoryError):
            call(allocate)
        assert allocate() == 1 << 29


@pytest.mark.parametrize(("function", "number"), [(read_address_zero, signal.SIGSEGV), (leave, 0)])
def test_the_end_of_a_call_is_told_by_its_signal_and_the_next_call_is_made(calls, function, number) -> None:
    for _ in range(2):
        with pytest.raises(CallDiedError) as caught:
            calls.call(function)
        assert caught.value.signal_number == number
        assert calls.call(double, b"x") == b"xx"


def test_a_call_that_hangs_in_native_code_is_ended() -> None:
    with IsolatedCalls(CallLimits(1 << 28, 0.2)) as calls, pytest.raises(CallDiedError) as caught:
        calls.call(keep_the_gil)
    assert caught.value.signal_number == signal.SIGALRM
    done = subprocess.run([sys.executable, "-c", HANG], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Timeout" in done.stderr

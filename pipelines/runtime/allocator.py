"""The C allocator of worker processes, which allocate and free megabytes for each image."""

import ctypes
import functools
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT_BYTES = 256 << 20
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc refuses more


@functools.cache
def keep_freed_memory() -> None:
    """Make glibc keep freed blocks for the next image instead of returning them to the kernel; elsewhere do nothing.

    Otherwise the arrays of every image are mapped and faulted in again, which costs more than resizing them: 7.0 ms
    became 3.0 ms for 1024 -> 256. For processes that handle one image after another.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)

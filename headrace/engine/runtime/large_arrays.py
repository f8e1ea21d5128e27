"""The C library's allocator, told to give the memory of large arrays back."""

import ctypes
import sys

#: Bytes from which on memory is mapped for itself, and goes when it is freed.
LARGE = 4 << 20
_M_MMAP_THRESHOLD = -3


def release_large_arrays() -> None:
    """Return the memory of arrays that a table has outgrown to the system.

    glibc raises the size from which on it does that to up to 32 MiB, by what is freed; tables that grow leave holes
    then that nothing fits: 442 bytes per entry of a window table of 200,000 instead of 389
    (`python benchmarks/windows.py --variant memory`). Does nothing elsewhere.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, LARGE)

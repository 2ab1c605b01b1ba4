"""Short time slices for libzmq's network threads, so that they need not wait for the end of ours.

A send wakes a network thread, often on the sender's own core. Since Linux 6.6 it waits there until the sender has used
up its slice or stands still: on busy cores half a millisecond or more in which an embedding does not leave while its
party computes on. Since Linux 6.12 a thread that asks for shorter slices comes first; it gets no larger share of the
core for that, and needs no privilege. Elsewhere nothing happens.

Source: the kernel's Documentation/scheduler/sched-eevdf.rst; sched_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SLICE_NS = 100_000
"""The shortest that Linux gives; what a network thread has to do for a batch takes about as long."""

_NUMBERS = {"x86_64": 314, "aarch64": 274}
"""Of the system call, which older C libraries have no function for."""

_THIS_THREAD = 0


class _Attributes(ctypes.Structure):
    """`struct sched_attr`, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("slice_ns", ctypes.c_uint64),
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    )


@contextmanager
def short_slices() -> Iterator[None]:
    """Let threads that are started in the body have short slices; this thread itself has them meanwhile."""
    shortened = _ask_for(_SLICE_NS)
    try:
        yield
    finally:
        if shortened:
            _ask_for(0)  # the usual ones


def _ask_for(slice_ns: int) -> bool:
    """Set the slices of this thread, and return whether that was possible; its other attributes stay as they are."""
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    try:
        if os.sched_getscheduler(_THIS_THREAD) != os.SCHED_OTHER:
            return False  # somebody has chosen otherwise
        nice = os.getpriority(os.PRIO_PROCESS, _THIS_THREAD)
        wanted = _Attributes(ctypes.sizeof(_Attributes), os.SCHED_OTHER, 0, nice, 0, slice_ns, 0, 0)
        return bool(ctypes.CDLL(None).syscall(number, _THIS_THREAD, ctypes.byref(wanted), 0) == 0)
    except (OSError, AttributeError):
        return False

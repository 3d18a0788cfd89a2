"""Kill a process between any two of its system calls (Linux, ptrace)."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS, _EXITKILL = 0, 24, 0x4200, 0x100000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def available() -> bool:
    """Whether this machine lets a process trace its child."""
    try:
        return not killed_at(1 << 30, lambda: None)
    except OSError:
        return False


def killed_at(stop: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a fork, and end it with SIGKILL at a stop: 1 is before its first system call, 2 after it, ...

    Returns:
        Whether it got so far; otherwise it ran to its end.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _libc.ptrace(_TRACEME, 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            code = 0
        finally:
            os._exit(code)
    _wait(child)
    _ptrace(_SETOPTIONS, child, _EXITKILL)
    deliver = 0
    for _ in range(stop):
        _ptrace(_SYSCALL, child, deliver)
        status = _wait(child)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise RuntimeError(f"the work failed with {os.WEXITSTATUS(status)}")
            return False
        if os.WIFSIGNALED(status):
            raise RuntimeError(f"the work was ended by signal {os.WTERMSIG(status)}")
        signalled = os.WSTOPSIG(status)
        deliver = 0 if signalled == signal.SIGTRAP else signalled
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _ptrace(request: int, child: int, data: int) -> None:
    if _libc.ptrace(request, child, None, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _wait(child: int) -> int:
    return os.waitpid(child, 0)[1]

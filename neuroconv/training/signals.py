"""Signals that end a run at its next step, with its state saved, and not at once."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

# SLURM sends USR1 before the end of a job's time, if it is told to (--signal).
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
)


class Interrupted(KeyboardInterrupt):
    """The end of a run by a signal, after its state was saved; `signal` is the number."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


class StopSignal:
    """Inside the context, the first of the signals sets `number`, and further ones do nothing.

    A signal that came too late for a step ends the context with `Interrupted`. One that the process
    ignores, as `nohup` has it, stays ignored. Python runs handlers in the main thread; in others
    the context has no effect.
    """

    def __init__(self, remark: str | None) -> None:
        self.number, self._remark = 0, remark
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            heeded = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._set) for number in heeded}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if kind is None and self.number:
            raise Interrupted(f"interrupted by {signal.Signals(self.number).name}", self.number)

    def _set(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            return
        self.number = number
        if self._remark is not None:  # not by the streams, in which the signal may have come
            os.write(2, f"\n{signal.Signals(number).name}: {self._remark}\n".encode())

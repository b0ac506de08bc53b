"""How the event loop wakes up on time."""

import asyncio
import select
import selectors
import sys

if sys.platform == "linux":

    class _FineSelector(selectors.EpollSelector):
        """Waits to the microsecond; epoll_wait, as Python calls it, rounds the timeout up to whole milliseconds."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None or timeout <= 0:
                return super().select(timeout)
            select.select([self.fileno()], [], [], timeout)
            return super().select(0)

    def new_loop() -> asyncio.AbstractEventLoop:
        """A loop whose timers are late by microseconds."""
        return asyncio.SelectorEventLoop(_FineSelector())

else:

    def new_loop() -> asyncio.AbstractEventLoop:
        """A loop whose timers are late by microseconds."""
        return asyncio.SelectorEventLoop()

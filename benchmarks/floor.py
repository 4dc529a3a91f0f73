"""The floor: the least that any supervisor on this kernel must do, as one small program.

posix_spawn, one epoll on pidfds, waitpid; no log, no record, no config, no privilege drop, no API.  It is started as
`python -I -S floor.py COUNT ARGV...`, keeps COUNT copies of ARGV running, starts each again at once when it dies, and
reads one-letter orders from standard input:

    u   start all that do not run        d   stop all: TERM, a second of patience, KILL        q   kill all and end

Each order that is done is answered by one line on standard output.
"""

import os
import select
import signal
import sys
import time

GRACE_SECONDS = 1.0


class Floor:
    """COUNT copies of one program."""

    def __init__(self, count: int, argv: list[str]) -> None:
        self.argv = argv
        self.slots: list[int] = [0] * count
        self.by_fd: dict[int, int] = {}
        self.epoll = select.epoll()
        self.epoll.register(0, select.EPOLLIN)
        self.wanted = True

    def spawn(self, slot: int) -> None:
        pid = os.posix_spawn(self.argv[0], self.argv, os.environ, setsid=True)
        fd = os.pidfd_open(pid)
        self.slots[slot] = pid
        self.by_fd[fd] = slot
        self.epoll.register(fd, select.EPOLLIN)

    def ended(self, fd: int) -> None:
        slot = self.by_fd.pop(fd)
        os.waitpid(self.slots[slot], 0)
        os.close(fd)
        self.slots[slot] = 0
        if self.wanted:
            self.spawn(slot)

    def up(self) -> None:
        self.wanted = True
        for slot, pid in enumerate(self.slots):
            if not pid:
                self.spawn(slot)

    def signal_all(self, number: int) -> None:
        for fd in self.by_fd:
            signal.pidfd_send_signal(fd, number)

    def down(self) -> None:
        self.wanted = False
        self.signal_all(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self.by_fd and (left := deadline - time.monotonic()) > 0:
            self.reap(left)
        self.signal_all(signal.SIGKILL)
        while self.by_fd:
            self.reap(5.0)

    def reap(self, timeout: float) -> None:
        for fd, _ in self.epoll.poll(timeout):
            if fd in self.by_fd:
                self.ended(fd)

    def run(self) -> None:
        while True:
            for fd, _ in self.epoll.poll():
                if fd in self.by_fd:
                    self.ended(fd)
                elif fd == 0 and not self.order(os.read(0, 1)):
                    return

    def order(self, letter: bytes) -> bool:
        if letter == b"u":
            self.up()
        elif letter == b"d":
            self.down()
        else:
            self.wanted = False
            self.signal_all(signal.SIGKILL)
            return False
        os.write(1, letter + b"\n")
        return True


if __name__ == "__main__":
    Floor(int(sys.argv[1]), sys.argv[2:]).run()

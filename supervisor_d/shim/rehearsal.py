"""A few short lives before the first: so that shims share what Python changes in itself when code first runs.

Since 3.11 the interpreter rewrites a function's bytecode while it is called the first times, and fills caches on the
way.  After a fork each such write costs a page (copy on write) and its time.  A zygote that has itself been a shim has
done them all: each of its shims is smaller by 400 KB, and starts its program sooner.
"""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress

from supervisor_d.shim import kernel, wire
from supervisor_d.shim.shim import Shim

LIVES = 8
"""As many calls as it takes until a function is rewritten for good."""
PROGRAM = "/bin/echo"
"""Where there is none, the lives end with exec's failure: nearly as good."""


class _Actor(Shim):
    """A shim that ends by itself, when nothing is left."""

    def say(self, fact: wire.Message) -> None:
        super().say(fact)
        if fact["event"] in {"emptied", "failed"}:
            self._loop.stop()


def rehearse(directory: str) -> None:
    """Live LIVES lives in a new directory beside `directory`, which is removed.  No descriptor above 2 may be open."""
    scratch = f"{directory}.{os.getpid()}"
    try:
        os.mkdir(scratch, 0o700)
    except OSError:
        return  # only a saving
    try:
        for _ in range(LIVES):
            _live(scratch)
    except OSError:
        pass
    finally:
        kernel.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        gc.collect()  # sockets close themselves, and must do so before others have their numbers
        os.closerange(3, 64)
        _clear(scratch)
        with suppress(OSError):
            os.rmdir(scratch)


def _live(scratch: str) -> None:
    _clear(scratch)
    with open(f"{scratch}/{wire.SPEC}", "wb") as file:
        file.write(wire.encode(dict(_spec())))
    daemon, link = kernel.socketpair()
    directory = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    daemon.send(wire.encode({"ask": "go"}))
    _Actor().run(link, directory, directory, [])
    daemon.close()


def _clear(scratch: str) -> None:
    for name in os.listdir(scratch):
        os.unlink(f"{scratch}/{name}")


def _spec() -> wire.Spec:
    return wire.Spec(
        version=wire.VERSION,
        id="rehearsal",
        facts="",
        argv=[PROGRAM, "rehearsal"],
        env={},
        cwd="/",
        account=None,
        listeners=0,
        limits=wire.LimitsSpec(
            open_files=None,
            processes=None,
            core_size_bytes=0,
            memory_bytes=None,
            nice=None,
            oom_score_adj=None,
            umask=0o022,
        ),
        log=wire.LogSpec(name="rehearsal", max_size_bytes=1024, keep=1, block_seconds=1.0),
        log_directory="",
        orphan_grace_seconds=0.0,
        private_dir="",
        notify=False,
        agent=False,
        cgroup="",
    )

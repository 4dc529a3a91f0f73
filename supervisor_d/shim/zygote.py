"""The zygote: forks shims.  A process of its own, started by the daemon as `python -I -S zygote.py <directory>`.

Why not fork from the daemon: a daemon of 60 MB takes long to fork, and each shim would keep its pages.  A shim that is
forked from here, from a heap that was rehearsed, collected and frozen, costs less than a megabyte.

Descriptor 0 is the control socket (SOCK_SEQPACKET).  A request is one datagram, its descriptors the link, the record's
directory, the log's directory and the listeners; all else stands in the record.  Its word is `shim`, or `keep` for one
that takes the place of a dead shim (keeper.py): then the main process's pidfd stands before the listeners.  `store`
asks for a store of sockets (store.py), with the link and the runtime directory.  There is no answer: the shim itself
speaks, over the link.  EOF (the daemon ended, or was replaced by exec) ends the zygote, and no shim notices.

One shim is always ready, the spare: it waits for the request itself, so that between a crash and the restart there is
no fork but the program's own.  It holds the write end of a pipe; that end's closing, be it that the spare got a request
or died, makes the zygote fork the next.

It is a subreaper and ignores SIGCHLD: what a dead shim leaves behind is reaped at once, and not when PID 1 comes to it,
so that the kernel can tell the exit (runtime/lost.py).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

if __name__ == "__main__":
    # -I -S: nothing of the site, the environment or the directory we were started in is on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from supervisor_d.shim import child, kernel, rehearsal, wire
    from supervisor_d.shim.keeper import Keeper
    from supervisor_d.shim.store import Store

    del sys.path[0]
else:
    from supervisor_d.shim import child, kernel, rehearsal, wire
    from supervisor_d.shim.keeper import Keeper
    from supervisor_d.shim.store import Store

DAEMON_IS_GONE = b"!"
KEEP = b"keep"
STORE = b"store"


def serve(control: kernel.Socket) -> None:
    """Keep a spare, until EOF."""
    while True:
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(theirs)
            told = refuse(control, error)
        else:
            if pid == 0:
                os.close(ours)
                be_spare(control, theirs)
            os.close(theirs)
            told = os.read(ours, 1)
        os.close(ours)
        if told == DAEMON_IS_GONE:
            return


def be_spare(control: kernel.Socket, zygote: int) -> NoReturn:
    """Wait for a request, and be its shim.  A bug ends it, and the record says why."""
    try:
        os.setsid()
        shim = Keeper()
        request, descriptors = kernel.receive(control)
        if not request:
            os.write(zygote, DAEMON_IS_GONE)
            os._exit(0)
        os.close(zygote)
        os.dup2(1, 0)  # /dev/null over the control socket
        if request == STORE:
            Store().run(kernel.Socket(fileno=descriptors[0]), descriptors[1])
            os._exit(0)
        link, record, log_directory, *others = descriptors
        try:
            if request == KEEP:
                shim.keep(kernel.Socket(fileno=link), record, log_directory, others[0], others[1:])
            else:
                shim.run(kernel.Socket(fileno=link), record, log_directory, others)
        except Exception as error:  # noqa: BLE001  (the last thing that can be done about it is to record it)
            shim.say({"event": "broken", "error": repr(error)})
            os._exit(70)
        os._exit(0)
    finally:
        os._exit(70)


def refuse(control: kernel.Socket, reason: OSError) -> bytes:
    """Answer the next request: no process can be had.  The next spare may have better luck."""
    request, descriptors = kernel.receive(control)
    if not request:
        return DAEMON_IS_GONE
    os.write(descriptors[0], wire.encode({"event": "failed", "step": "fork its shim", "errno": reason.errno}))
    for descriptor in descriptors:
        os.close(descriptor)
    return b""


def main() -> None:
    """Until the daemon is gone."""
    os.umask(0o027)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
        signal.signal(number, signal.SIG_DFL)
    for number in (*child.IGNORED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    rehearsal.rehearse(sys.argv[1])
    kernel.set_name("shim zygote")
    kernel.become_subreaper()
    gc.collect()
    gc.freeze()
    serve(kernel.Socket(fileno=0))


if __name__ == "__main__":
    main()

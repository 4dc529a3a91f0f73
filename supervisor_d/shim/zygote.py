"""The zygote: forks shims.  A process of its own, started by the daemon as `python -I -S zygote.py
<scratch directory>`.

Why not fork from the daemon: a daemon of 60 MB takes long to fork, and each shim would keep its pages.  A shim that is
forked from here, from a heap that was collected and frozen, costs half a megabyte of its own.

Descriptor 0 is the control socket (SOCK_SEQPACKET).  A request is one datagram, its descriptors the link, the record's
directory, the log's directory and the listeners; all else stands in the record.  There is no answer: the shim itself
speaks, over the link.  EOF (the daemon ended, or was replaced by exec) ends the zygote, and no shim notices.

It is a subreaper and ignores SIGCHLD: what a dead shim leaves behind is reaped at once, and not when PID 1 comes to it,
so that the kernel can tell the exit (runtime/lost.py).
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

if __name__ == "__main__":
    # -I -S: nothing of the site, the environment or the directory we were started in is on the path.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from supervisor_d.shim import kernel, rehearsal, shim, wire

    del sys.path[0]
else:
    from supervisor_d.shim import kernel, rehearsal, shim, wire

DESCRIPTORS_MAX = 253
IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""By shims as well: who stops a whole control group must not take away what holds exits and logs."""


def serve(control: socket.socket) -> None:
    """Fork a shim for each request, until EOF."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 16, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC)
        if not request:
            return
        link, record, log_directory, *listeners = descriptors
        connection = kernel.Socket(fileno=link)
        try:
            pid = os.fork()
        except OSError as error:
            connection.send(wire.encode({"event": "failed", "step": "fork its shim", "errno": error.errno}))
        else:
            if pid == 0:
                os.setsid()
                os.dup2(1, 0)  # /dev/null over the control socket
                shim.main(connection, record, log_directory, listeners)
        connection.close()
        for descriptor in descriptors[1:]:
            os.close(descriptor)


def main() -> None:
    """Until the daemon is gone."""
    os.umask(0o027)
    for number in (*IGNORED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    rehearsal.rehearse(sys.argv[1])
    kernel.set_name("shim zygote")
    kernel.become_subreaper()
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=0))


if __name__ == "__main__":
    main()

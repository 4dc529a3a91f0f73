"""The daemon's side of the zygote: started when first needed, and again when it died."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from supervisor_d.shim import wire

_COMMAND = (sys.executable, "-I", "-S", str(Path(wire.__file__).with_name("zygote.py")))
_END_SECONDS = 5.0
_REQUEST = b"shim"


class Zygote:
    """Sends requests for shims.  Death of the zygote is found out by the next request."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its pid, if one was started."""
        return self._process.pid if self._process else None

    def request(self, descriptors: list[int]) -> None:
        """Ask for a shim.  Raises OSError: BlockingIOError when it has too much to do, others when there is none."""
        control = self._control or self._start()
        try:
            socket.send_fds(control, [_REQUEST], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            self.close()
            socket.send_fds(self._start(), [_REQUEST], descriptors)

    def close(self) -> None:
        """Let it end, by EOF; no shim notices."""
        if self._control:
            self._control.close()
            self._control = None
        if self._process:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    (*_COMMAND, str(self._scratch)),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={},
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._control = ours
        return ours

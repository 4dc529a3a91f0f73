"""The daemon's side of the zygote: started when first needed, and again when it died.

Under systemd it lives in the scope of our processes (runtime/scopes.py), and is what keeps the scope alive while there
are none.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from supervisor_d.runtime import crash
from supervisor_d.runtime.scopes import Scope
from supervisor_d.shim import wire

_COMMAND = (sys.executable, "-I", "-S", str(Path(wire.__file__).with_name("zygote.py")))
_END_SECONDS = 5.0
SHIM = b"shim"
KEEP = b"keep"
STORE = b"store"


class Zygote:
    """Sends requests for shims.  Death of the zygote is found out by the next request."""

    def __init__(self, scratch: Path, scope: Scope | None = None) -> None:
        self._scratch = scratch
        self._scope = scope
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its pid, if one was started."""
        return self._process.pid if self._process else None

    def request(self, descriptors: list[int], word: bytes = SHIM) -> None:
        """Ask for a shim, or for one in adopt mode (KEEP), or for a store of sockets (STORE).

        Raises OSError: BlockingIOError when it has too much to do, others when there is none.
        """
        control = self._control or self._start()
        try:
            socket.send_fds(control, [word], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            self.close()
            socket.send_fds(self._start(), [word], descriptors)

    @property
    def scope(self) -> Scope | None:
        """The scope that it is started in; None once that was refused."""
        return self._scope

    def be_ready(self) -> None:
        """Start it now.  Raises OSError."""
        if self._control is None:
            self._start()

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
                self._process = self._in_scope(theirs.fileno()) or self._run(self._command, theirs.fileno())
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        self._control = ours
        return ours

    @property
    def _command(self) -> tuple[str, ...]:
        return (*_COMMAND, str(self._scratch))

    def _in_scope(self, control: int) -> subprocess.Popen[bytes] | None:
        """A zygote in the scope; None where there is to be none, or it is refused, now and for ever."""
        scope = self._scope
        if scope is None:
            return None
        with suppress(OSError):
            if scope.lives():
                process = self._run(self._command, control)
                scope.admit(process.pid)
                return process
            process = self._run(scope.making(self._command), control)
            if scope.await_admission(process):
                return process
            process.kill()
            process.wait()
        self._scope = None
        return None

    @staticmethod
    def _run(command: tuple[str, ...], control: int) -> subprocess.Popen[bytes]:
        null = subprocess.DEVNULL
        env = {crash.ENV: os.environ[crash.ENV]} if crash.ENV in os.environ else {}
        return subprocess.Popen(
            command, stdin=control, stdout=null, stderr=null, cwd="/", env=env, start_new_session=True
        )

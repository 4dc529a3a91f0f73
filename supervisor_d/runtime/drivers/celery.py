"""Celery workers: ready by their agent's word, pool processes counted in /proc.

The agent (supervisor_d/agents/) says `{"ready": true, "pid": N, ...}` once the worker is up, and what else it can do
(runtime/drivers/agent.py).  A worker counts as ready once its heartbeat shows that it asks the broker for messages.
Whatever the agent cannot do, or is not asked in time, is done without: by signals.
Pool processes are those children of the main process that were forked and never exec'd: their command line is the
main's own, or the title that Celery gives them where setproctitle is installed; or those that billiard has started
afresh (`worker_pool_start_method: spawn`, Celery 5.7), which say so.  Whatever else the application starts from its
main process is not a worker.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from supervisor_d.core.events import Remarked, ScaleRefused, StepDone, TasksReported
from supervisor_d.core.process import Process, TasksLeft
from supervisor_d.core.spec import DRAIN, KILL_WORKERS, Launch
from supervisor_d.runtime import pidfd, tasks
from supervisor_d.runtime.drivers import heartbeat
from supervisor_d.runtime.drivers.agent import Conversation, Hello, Reply, understood
from supervisor_d.runtime.drivers.base import DriverReady, Tell
from supervisor_d.runtime.drivers.celery_work import Accounts, WorkFigures
from supervisor_d.runtime.drivers.counting import Counted, CountingDriver
from supervisor_d.runtime.drivers.heartbeat import printable
from supervisor_d.runtime.drivers.vigil import Vigil
from supervisor_d.runtime.host import Emit
from supervisor_d.runtime.proc import catches, children_of, stat_fields

_TITLE = b"[celeryd:"
"""celery.platforms.set_process_title"""
_SPAWNED = b"\0--billiard-fork\0"
"""An argument of every process that billiard spawns (billiard.spawn.get_command_line)."""
_CMDLINE_BYTES = 4096
ANSWER_SECONDS = 5.0
"""For an agent to say who it is, or what became of a request to resize."""
LEFT_SECONDS = 0.5
"""Between two looks at what a stopping worker has left; its agent writes once a second."""
LEFT_AGAIN_SECONDS = 10.0
"""Tasks that are left are told again, however little changes: whoever waits for them sees them grow old."""


@dataclass(slots=True)
class Resizing:
    """A size that a worker is to be brought to, and how far its agent was asked."""

    workers: int
    since: float
    asked_at: float | None = None
    """None before the first question; the answer is awaited until `target` is set."""
    target: int | None = None
    """How many pool processes the agent says there will be."""


@dataclass(slots=True)
class Node:
    """One worker's main process, beyond its count of pool processes."""

    id: str
    pid: int
    private_dir: str
    agent: bool
    conversation: Conversation
    started_at: str
    """By /proc, so that another process of that pid is never taken for it."""
    hello: Hello | None = None
    """What its agent can do; None before it spoke."""
    consumes: bool = False
    """It was seen to ask the broker for messages."""
    reachable: bool = True
    """What is told to its agent arrives."""
    resizing: Resizing | None = None
    left: TasksLeft | None = None
    left_told_at: float = 0.0
    watch: asyncio.Task[None] | None = None
    """While it stops."""

    def can(self, feature: str) -> bool:
        """Whether its agent can be asked for something."""
        return self.agent and self.reachable and self.hello is not None and self.hello.can(feature)


class CeleryDriver(CountingDriver):
    """Looks after Celery's main processes and their prefork pools."""

    def __init__(self, emit: Emit, ready: DriverReady, tell: Tell) -> None:
        super().__init__(emit, ready)
        self._tell = tell
        self._nodes: dict[str, Node] = {}
        self._vigil = Vigil(emit)
        self._accounts = Accounts()

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """One that was adopted is asked again what its agent can do."""
        if process.pid is None or process.id in self._nodes:
            return
        conversation = Conversation(partial(self._tell, process.id), int(self._loop.time() * 1000))
        node = Node(process.id, process.pid, private_dir, launch.agent, conversation, started_at(process.pid))
        node.consumes = process.ready_at is not None
        self._nodes[process.id] = node
        if launch.agent and process.role == "serve":
            self._accounts.opened(process.id, process.pool, process.pid, private_dir)
        super().started(process, launch, private_dir)
        if process.adopted:
            conversation.ask("hello")
        if process.stop is not None:
            self.stopping(process.id)
        elif node.consumes:
            self._expect_progress(node, launch)

    def _expect_progress(self, node: Node, launch: Launch) -> None:
        self._vigil.begin(node.id, node.pid, node.private_dir, launch.stuck_after_seconds)

    def told(self, process_id: str, text: str) -> None:
        """The agent's word; that of any process but the main one is ignored."""
        node = self._nodes.get(process_id)
        said = understood(text, node.pid) if node is not None else None
        if node is None or said is None:
            return
        if isinstance(said, Reply):
            node.conversation.answered(said)
            return
        if node.hello is None and (remark := said.remark()):
            self._emit(Remarked(process_id, remark))
        node.hello = said
        counted = self._processes[process_id]
        counted.told_ready = True
        counted.disturbed.set()

    def step(self, process_id: str, word: str, step: int) -> None:
        """DRAIN is over when the agent says that nothing more is taken, KILL-WORKERS when there was nobody to kill."""
        node = self._nodes.get(process_id)
        if node is not None and word == DRAIN and node.can("drain"):
            node.conversation.ask("drain", lambda _: self._emit(StepDone(process_id, step)))
            return
        if node is not None and word == KILL_WORKERS:
            for pid in pool_processes(node.pid):
                self._members.follow(process_id, node.pid, pid)
            if self._members.signal_all(process_id, signal.SIGKILL):
                return
        self._emit(StepDone(process_id, step))

    def stopping(self, process_id: str) -> None:
        """From now on what is left is told as it changes, and no progress is expected."""
        self._vigil.end(process_id)
        self._accounts.ended(process_id)
        node = self._nodes.get(process_id)
        if node is None or not node.agent or node.watch is not None:
            return
        self._tell_left(node)
        node.watch = tasks.begin(self._watch_left(node), f"tasks left of {node.id}")

    def scale(self, process_id: str, workers: int) -> None:
        """By the agent, which lets no pool process go in the middle of a task."""
        if node := self._nodes.get(process_id):
            node.resizing = Resizing(workers, self._loop.time())
        super().scale(process_id, workers)

    def figures(self) -> WorkFigures:
        """What the workers have in hand and have done, as far as our agent in them tells."""
        return self._accounts.figures()

    def stacks(self, process_id: str) -> None:
        """By a signal that its agent has made harmless: a loop that hangs could not be asked.

        A spawned pool process has inherited no handler, and is spared.
        """
        node = self._nodes.get(process_id)
        number = node.hello.stacks_signal if node is not None and node.hello is not None else None
        if node is None or number is None:
            return
        with suppress(OSError):
            main = os.pidfd_open(node.pid)
            if started_at(node.pid) == node.started_at:
                pidfd.send(main, number)
            os.close(main)
        for pid in self._members.pids(process_id):
            if catches(pid, number):
                self._members.signal(process_id, pid, number)

    def cut_off(self, process_id: str) -> None:
        """The heartbeat is a file, and goes on."""
        if node := self._nodes.get(process_id):
            node.reachable = False

    def ended(self, process_id: str) -> None:
        """Look after it no more."""
        self._vigil.end(process_id)
        node = self._nodes.pop(process_id, None)
        if node is not None:
            node.conversation.forget()
            if node.watch is not None:
                node.watch.cancel()
        super().ended(process_id)

    async def _watch_left(self, node: Node) -> None:
        while True:
            await asyncio.sleep(LEFT_SECONDS)
            self._tell_left(node)

    def _tell_left(self, node: Node) -> None:
        beat = heartbeat.read(node.private_dir, node.pid)
        if beat is None:
            return
        left, now = beat.tasks_left(), self._loop.time()
        if left != node.left or (left.active and now - node.left_told_at > LEFT_AGAIN_SECONDS):
            node.left, node.left_told_at = left, now
            self._emit(TasksReported(node.id, left, now))

    async def _look(self, counted: Counted) -> bool:
        if counted.launch.agent and not counted.told_ready:
            return True  # nothing to do before it speaks, and speaking is a disturbance
        live = sum(self._members.follow(counted.id, counted.pid, pid) for pid in pool_processes(counted.pid))
        self._report(counted, live, live)
        node = self._nodes[counted.id]
        if not self._consumes(node):
            return False
        self._ready(counted.id)
        if node.watch is None:
            self._expect_progress(node, counted.launch)
        if live == counted.wanted:
            node.resizing = None
        elif node.resizing is not None:
            self._resize(node, node.resizing, live)
        return live == counted.wanted

    def _resize(self, node: Node, resizing: Resizing, live: int) -> None:
        """Ask once; then the processes come, or go as their tasks end."""
        waited = self._loop.time() - (resizing.since if resizing.asked_at is None else resizing.asked_at)
        if resizing.target is None and waited > ANSWER_SECONDS:
            self._refuse(node, resizing, "its agent does not answer")
        elif resizing.asked_at is None and node.can("pool"):
            resizing.asked_at = self._loop.time()
            beat = heartbeat.read(node.private_dir, node.pid)
            more = resizing.workers - (beat.target if beat is not None and beat.target else live)
            answered = partial(self._resized, node, resizing)
            node.conversation.ask("grow" if more > 0 else "shrink", answered, number=abs(more))
        elif resizing.asked_at is None and (node.hello is not None or not node.agent or not node.reachable):
            self._refuse(
                node, resizing, "no agent that could do it" if node.hello is None else "its agent cannot do it"
            )

    def _resized(self, node: Node, resizing: Resizing, reply: Reply) -> None:
        target = reply.data.get("processes")
        if node.resizing is not resizing:
            return
        if reply.ok and target == resizing.workers:
            resizing.target = target
        else:
            self._refuse(node, resizing, printable(reply.error) or f"its agent brought it to {target!s:.20} instead")

    def _refuse(self, node: Node, resizing: Resizing, why: str) -> None:
        node.resizing = None
        self._emit(ScaleRefused(node.id, resizing.workers, why))

    def _consumes(self, node: Node) -> bool:
        """Whether it asks its broker for messages: a worker says that it is ready a moment before.

        Only then may the one that it replaces be drained, or what is sent in between would wait for it.
        """
        if not node.consumes:
            hello = node.hello
            shows = hello is not None and hello.can("heartbeat") and hello.broker == "redis" and not hello.canary
            beat = heartbeat.read(node.private_dir, node.pid) if shows else None
            node.consumes = not shows or (beat is not None and beat.take_at is not None)
        return node.consumes


def started_at(pid: int) -> str:
    """Field 22 of proc_pid_stat(5); empty when it is gone."""
    fields = stat_fields(pid)
    return fields[19] if fields else ""


def pool_processes(main: int) -> frozenset[int]:
    """The pool processes of a Celery main process; empty when it is gone."""
    own = _cmdline(main)
    return frozenset(pid for pid in children_of(main) if _is_pool_process(_cmdline(pid), own))


def _is_pool_process(cmdline: bytes, main_cmdline: bytes) -> bool:
    return bool(cmdline) and (cmdline == main_cmdline or cmdline.startswith(_TITLE) or _SPAWNED in cmdline)


def _cmdline(pid: int) -> bytes:
    """The first bytes of a command line; empty for what is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return cmdline.read(_CMDLINE_BYTES)
    except OSError:
        return b""

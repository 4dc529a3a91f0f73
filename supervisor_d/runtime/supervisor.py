"""The loop: facts in, decisions out, effects done.  The only module that holds the present Observed and Intent.

Theory of operation.  Everything that happens reaches `post` as an event and waits in the inbox.  One *turn* empties
the inbox through `evolve`, then plans and performs until the plan is empty:

    inbox -> evolve -> plan -> perform -> (performed event) -> evolve -> plan -> ... -> nothing left -> sleep

A turn never awaits, so nothing can come in between; what performing causes comes back later as new events.  The plan
says when to wake next, and a single timer does so: an idle daemon has no other.  An operator's decision is a change
of the intent (core/intent.py), written down before anything acts on it, followed by a turn.

Adoption is a turn like any other: one `Adopted` for each process of a former daemon, before the first plan.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core import intent as intents
from supervisor_d.core.adoption import Progress, RecordedFacts
from supervisor_d.core.derive import Kinds, derive
from supervisor_d.core.desired import Desired
from supervisor_d.core.evolve import evolve
from supervisor_d.core.intent import Intent, PoolIntent
from supervisor_d.core.journal import Note, describe_action, describe_event, log_to_quote
from supervisor_d.core.observed import Observed
from supervisor_d.core.performed import performed
from supervisor_d.core.plan import plan
from supervisor_d.core.process import IllegalTransitionError, Process
from supervisor_d.core.spec import Launch, LaunchContext, PoolSpec
from supervisor_d.errors import InternalError, PrepareError
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime import crash
from supervisor_d.runtime.host import Host
from supervisor_d.runtime.journal import Journal
from supervisor_d.runtime.state import encode

MAX_ROUNDS = 100
AGAIN_SECONDS = 1.0
"""After which a decision is made again that could not be written down."""
MAX_INBOX = 100_000


class Attendants(Protocol):
    """Whoever looks after a running process: readiness probes and drivers."""

    def started(self, process: Process, spec: PoolSpec, launch: Launch) -> None:
        """A process was spawned or adopted."""

    def scale(self, process_id: str, workers: int) -> None:
        """Bring a process to that many workers."""

    def step(self, process_id: str, word: str, step: int) -> None:
        """Carry out a step of the stop list that is no signal."""

    def stopping(self, process_id: str) -> None:
        """A step of the stop list was sent."""

    def stacks(self, process_id: str) -> None:
        """Make a process write its stacks to its log."""

    def cut_off(self, process_id: str) -> None:
        """Its shim died: nothing reaches its agent any more."""

    def ended(self, process_id: str) -> None:
        """The process's main ended, or nothing of it ever ran."""


class Keeper(Protocol):
    """Whoever writes down what must outlive the daemon."""

    def save(self, intent: Intent) -> None:
        """Write the intent down, durably."""

    def save_successes(self, generations: Mapping[str, tuple[int, ...]]) -> None:
        """Write oneshots' successes down."""

    def version_rules(self, spec: PoolSpec, *, alone: bool) -> None:
        """This version of a pool is wanted from now on; `alone`: and no other, for no rollout is under way."""

    def last_words(self, pool: str, log: str, since: float) -> str:
        """What was last written to a pool's log, at or after a monotonic time; empty if nothing was."""


Decision = act.RecordSuccess | act.PassGate | act.ConcludeRollout | act.DropPool
"""An action that changes the intent."""
Deed = act.Spawn | act.Signal | act.DriverStep | act.Kill | act.Scale | act.TakeStacks | act.Restore | act.Forget
"""An action that is done to a process."""
ContextOf = Callable[[Process, PoolSpec], LaunchContext]
FdsOf = Callable[[PoolSpec], tuple[int, ...]]


KINDS = Kinds(
    traits_of=lambda spec: PROGRAMS[spec.program].traits,
    sizes=lambda spec, workers: PROGRAMS[spec.program].sizes(spec, workers),
    gates_of=lambda spec: PROGRAMS[spec.program].gates(spec),
)
"""What the programs say of their specs."""


class Supervisor:
    """Owns the state and the turn.  All methods are called from the event loop's thread."""

    def __init__(
        self,
        host: Host,
        attendants: Attendants,
        keeper: Keeper,
        journal: Journal,
        context_of: ContextOf,
        fds_of: FdsOf,
        restore: Callable[[str], None],
    ) -> None:
        """`restore` gives back what an ended process held, and emits Restored or RestoreFailed."""
        self.host = host
        self.journal = journal
        self.intent = Intent()
        self.desired = Desired()
        self.observed = Observed()
        self.plans_total = 0
        self.plan_seconds_total = 0.0
        self.events_total = 0
        self.loop_lag_seconds = 0.0
        self._attendants = attendants
        self._keeper = keeper
        self._context_of = context_of
        self._fds_of = fds_of
        self._restore = restore
        self._inbox: deque[ev.Event] = deque()
        self._noted: dict[str, Progress] = {}
        """What each process's record says of its progress."""
        self._loop = asyncio.get_running_loop()
        self._turn_due_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._other_versions: set[str] = set()
        """Pools of which other versions are wanted than the keeper knows."""
        self._refused = False
        """The last decision could not be written down."""
        self._watchers: list[Callable[[], None]] = []
        self.failed: asyncio.Future[None] = self._loop.create_future()

    # facts

    def post(self, event: ev.Event) -> None:
        """Put a fact into the inbox; it is folded in at the next turn."""
        if len(self._inbox) >= MAX_INBOX:
            raise InternalError("cannot go on: the inbox is full")
        self._inbox.append(event)
        self._schedule()

    def change(self, intent: Intent) -> None:
        """Make `intent` the one that rules: written down first, acted on at the next turn.

        Raises OSError when it cannot be written down; nothing has changed then.
        """
        if intent == self.intent:
            return
        self._keeper.save(intent)
        self._set_intent(intent)
        self._schedule()

    def steer(self, intent: Intent) -> None:
        """Make `intent` rule for the life of this daemon only: how it ends is not written down."""
        self._set_intent(intent)
        self._schedule()

    def restore(self, intent: Intent, successes: Mapping[str, tuple[int, ...]]) -> None:
        """Take over what a former daemon had written down."""
        self._set_intent(intent)
        for pool, generations in successes.items():
            for generation in generations:
                self.post(ev.SuccessRecorded(pool, generation))
        self._schedule()

    async def turned(self) -> None:
        """Return once a turn has seen everything that is in the inbox now."""
        seen = asyncio.Event()
        stop_watching = self.watch(seen.set)
        try:
            self._schedule()
            await seen.wait()
        finally:
            stop_watching()

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after every turn that did something; returns the way to stop that."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def _set_intent(self, intent: Intent) -> None:
        self._other_versions |= _other_versions(self.intent, intent)
        self.intent = intent
        self.desired = derive(intent, KINDS)

    # the turn

    def _schedule(self) -> None:
        if self._turn_due_at is None:
            self._turn_due_at = time.monotonic()
            self._loop.call_soon(self._guarded_turn)

    def _woken(self, due_at: float) -> None:
        self._timer = None
        if self._turn_due_at is None:
            self._turn_due_at = due_at
            self._guarded_turn()

    def _guarded_turn(self) -> None:
        """An unexpected exception ends the daemon and nothing else: its processes live on, to be adopted."""
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001  the crash-only rule: report once, in one place
            if not self.failed.done():
                self.failed.set_exception(error)

    def _turn(self) -> None:
        began = time.monotonic()
        if self._turn_due_at is not None:
            self.loop_lag_seconds = max(0.0, began - self._turn_due_at)
        self._turn_due_at = None
        while self._inbox:
            event = self._inbox.popleft()
            self._fold(event, tell=True)
            self._note_progress(getattr(event, "id", ""))
        for _ in range(MAX_ROUNDS):
            if not self._plan_once():
                break
        else:
            raise InternalError(f"cannot go on: the plan does not settle in {MAX_ROUNDS} rounds")
        self._tell_of_versions()
        self.plan_seconds_total += time.monotonic() - began
        self.journal.flush()
        for watcher in tuple(self._watchers):
            watcher()

    def _tell_of_versions(self) -> None:
        """Whoever decided it: a deploy's rollback concludes the rollouts of other pools too."""
        for name in sorted(self._other_versions & self.intent.pools.keys()):
            pool = self.intent.pools[name]
            if not pool.removed:
                self._keeper.version_rules(pool.wanted.spec, alone=pool.previous is None)
        self._other_versions.clear()

    def _plan_once(self) -> bool:
        """Plan and perform once; whether there may be more to do."""
        now = self.host.now()
        made = plan(self.desired, self.observed, now)
        self.plans_total += 1
        done = [self._done(action) for action in made.actions]
        if not any(done):
            self._set_timer(min(made.wake_at or math.inf, now + AGAIN_SECONDS) if done else made.wake_at)
        return any(done)

    def _done(self, action: act.Action) -> bool:
        """Whether it could be.  A start that a verdict of the same plan has made void is left out, and done with."""
        if isinstance(action, Decision):
            return self._decide(action)
        if not isinstance(action, act.Spawn) or intents.spec_of(self.intent, action.pool, action.generation):
            self._perform(action)
        return True

    def _set_timer(self, wake_at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            delay = max(0.0, wake_at - self.host.now())
            self._timer = self._loop.call_later(delay, self._woken, wake_at)

    def _fold(self, event: ev.Event, *, tell: bool) -> None:
        self.events_total += 1
        try:
            after = evolve(self.observed, event, self.host.now())
        except IllegalTransitionError as error:
            self.journal.record(Note("event", "ignored", "", "daemon", str(error)))
            return
        if tell:
            self._tell(self._with_last_words(describe_event(event, self.observed), event))
        self.observed = after
        self._attend(event)

    def _tell(self, note: Note | None) -> None:
        if note is not None:
            self.journal.record(note)

    def _with_last_words(self, note: Note | None, event: ev.Event) -> Note | None:
        log, since = log_to_quote(event, self.observed)
        return replace(note, reason=self._explained(note.reason, note.pool, log, since)) if note and log else note

    def _explained(self, reason: str, pool: str, log: str, since: float) -> str:
        words = self._keeper.last_words(pool, log, since)
        return f"{reason}; its last words: {words}" if words else reason

    def _attend(self, event: ev.Event) -> None:
        match event:
            case ev.Spawned(id):
                self._start_attending(id)
            case ev.Adopted(process):
                self._noted[process.id] = Progress.of(process)  # what comes after it is news
                if process.pid is not None and process.exit is None:
                    self._start_attending(process.id)
            case ev.StopSignalled(id) | ev.KillSent(id):
                self._attendants.stopping(id)
            case ev.ShimLost(id) | ev.ShimReplaced(id):
                self._attendants.cut_off(id)
            case ev.MainExited(id) | ev.SpawnFailed(id):
                self._attendants.ended(id)
            case _:
                pass

    def _start_attending(self, process_id: str) -> None:
        process = self.observed.find(process_id)
        spec = intents.known_spec(self.intent, process.pool, process.generation) if process is not None else None
        if process is not None and spec is not None:
            launch = PROGRAMS[spec.program].launch(spec, self._context_of(process, spec))
            self._attendants.started(process, spec, launch)

    # effects

    def _perform(self, action: Deed) -> None:
        self._tell(describe_action(action))
        event = performed(action)
        if event is not None:
            self._fold(event, tell=False)
        match action:
            case act.Spawn():
                self._spawn(action)
            case act.TakeStacks() | act.Signal() | act.DriverStep() | act.Kill():
                self._stop(action)
            case act.Scale(id, workers):
                self._attendants.scale(id, workers)
            case act.Restore(id):
                self._restore(id)
            case act.Forget(id):
                self.host.forget(id)
        self._note_progress(getattr(action, "id", ""))

    def _decide(self, action: Decision) -> bool:
        """Write a decision down, and let it rule; False when the disk refuses: then it is made again, in a while."""
        if isinstance(action, act.ConcludeRollout) and action.log:
            rollout = self.intent.pools[action.pool].rollout
            since = rollout.began_at if rollout is not None else 0.0
            action = replace(action, reason=self._explained(action.reason, action.pool, action.log, since))
        try:
            self._write_down(action)
        except OSError as error:
            if not self._refused:
                reason = f"cannot write a decision down: {error.strerror}; it is tried again every second"
                self.journal.record(Note("daemon", "refused", action.pool, action.pool, reason))
            self._refused = True
            return False
        self._refused = False
        self._tell(describe_action(action))
        event = performed(action)
        if event is not None:
            self._fold(event, tell=False)
        return True

    def _write_down(self, action: Decision) -> None:
        match action:
            case act.RecordSuccess(pool, generation, reason):
                # In this order: the end of its process is on record, and replays what was not written.
                self._conclude(act.ConcludeRollout(pool, generation, "succeeded", reason))
                done = {name: facts.successes for name, facts in self.observed.pools.items()}
                done[pool] = done.get(pool, frozenset()) | {generation}
                self._keeper.save_successes({name: tuple(sorted(each)) for name, each in done.items()})
            case act.PassGate():
                self.change(intents.pass_gate(self.intent, action))
            case act.ConcludeRollout():
                self._conclude(action)
            case act.DropPool(pool):
                self.change(intents.drop(self.intent, pool))

    def _stop(self, action: act.TakeStacks | act.Signal | act.DriverStep | act.Kill) -> None:
        """One step of a stop list, or what comes before the first."""
        match action:
            case act.TakeStacks(id):
                self._attendants.stacks(id)
            case act.Signal(id, signal):
                crash.point("stop-before-signal")
                self.host.signal(id, signal)
                crash.point("stop-after-signal")
            case act.DriverStep(id, word, step):
                self._attendants.step(id, word, step)
            case act.Kill(id):
                self.host.kill(id)

    def _note_progress(self, process_id: str) -> None:
        """Keep the record up to date, after the effect: what a daemon that dies in between had done is done again."""
        process = self.observed.find(process_id)
        if process is None or process.ended:
            self._noted.pop(process_id, None)
            return
        progress = Progress.of(process)
        if self._noted.setdefault(process_id, progress) != progress:
            self._noted[process_id] = progress
            self.host.note(process_id, encode(progress))

    def _conclude(self, action: act.ConcludeRollout) -> None:
        crash.point("conclude-before-intent")
        self.change(intents.conclude(self.intent, action, self.host.now()))
        crash.point("conclude-after-intent")

    def _spawn(self, action: act.Spawn) -> None:
        process = self.observed.find(action.id)
        spec = intents.spec_of(self.intent, action.pool, action.generation)
        if process is None or spec is None:
            raise InternalError(f"cannot spawn {action.id}: its generation is not known")
        launch = PROGRAMS[spec.program].launch(spec, self._context_of(process, spec))
        try:
            fds = self._fds_of(spec)
        except PrepareError as error:
            self.post(ev.SpawnFailed(action.id, error.message))
            return
        facts = RecordedFacts.of(process, action.epoch)
        self.host.spawn(action.id, launch, tuple(fds[index] for index in launch.listeners), encode(facts))


def _other_versions(before: Intent, after: Intent) -> set[str]:
    """The pools of which other versions are wanted after than before, or fewer."""

    def versions(pool: PoolIntent) -> tuple[int, int]:
        return pool.wanted.generation, pool.previous.generation if pool.previous is not None else 0

    known = before.pools.keys() & after.pools.keys()
    return {name for name in known if versions(before.pools[name]) != versions(after.pools[name])}

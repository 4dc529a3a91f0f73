"""A whole host in virtual time: the pure core, a loop as the runtime's (runtime/supervisor.py), a FakeHost, operators.

Every fact, action and decision passes through here, and `Invariants` looks at each.  The loop may die between any two
effects (`dies_after`); what it had written down and what the host has on record are then all that the next one knows.

Where a test fails, `world.story()` is the transcript that led there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core import intent as intents
from supervisor_d.core.adoption import Progress, RecordedFacts
from supervisor_d.core.derive import derive
from supervisor_d.core.desired import Desired
from supervisor_d.core.evolve import evolve
from supervisor_d.core.intent import Intent
from supervisor_d.core.journal import Note, describe_action, describe_event
from supervisor_d.core.observed import Observed
from supervisor_d.core.performed import performed
from supervisor_d.core.plan import plan
from supervisor_d.core.process import Exit, TasksLeft
from supervisor_d.core.spec import Launch, PoolSpec
from supervisor_d.runtime.adopting import adoption_events
from supervisor_d.runtime.state import encode
from tests.sim.invariants import Invariants
from tests.sim.pools import CRASH_AT_BOOT, GOOD, IMPORTS, KINDS, REFUSES, WORK
from tests.support.fake_host import Agenda, FakeHost, FakeProcess, Script

MAX_ROUNDS = 12
SCALING_SECONDS = 0.05
RESTORING_SECONDS = 0.2


class DaemonDiedError(Exception):
    """The daemon is gone between two effects."""


class World:
    """The state of the daemon and of everything around it."""

    def __init__(self, *specs: PoolSpec, starts_at_once: int = 8) -> None:
        self.agenda = Agenda()
        self.scripts: dict[str, Script] = {}
        self.roles: dict[str, str] = {}
        self.specs: dict[str, PoolSpec] = {}
        """The config file."""
        self.log: list[str] = []
        self.broken = False
        """An invariant does not hold: nothing that follows means anything."""
        self.calm = False
        """From now on every new process behaves."""
        self.refusals = 0
        """How many of the next spawns the kernel refuses."""
        self.lost_scales = 0
        """How many of the next requests to scale a driver loses."""
        self.lost_restores = 0
        """How many of the next attempts to give back what an ended process held fail."""
        self.restored: set[str] = set()
        """The truth: ended processes of which nothing is held any more."""
        self.dies_after: int | None = None
        self.stored = Intent(starts_at_once=starts_at_once)
        self.stored_successes: Mapping[str, tuple[int, ...]] = {}
        self.intent = self.stored
        self.desired = Desired()
        self.observed = Observed()
        self.seen, self.seen_desired = self.observed, self.desired
        """What the plan that is being performed was made from."""
        self.wake_at: float | None = None
        self.invariants = Invariants(self)
        self._inbox: deque[ev.Event] = deque()
        self._noted: dict[str, Progress] = {}
        self._life = 0
        self.host = FakeHost(self.agenda, lambda process_id, _: self.scripts[process_id], partial(self._post, 0))
        self.reload(*specs)

    # what tests read

    @property
    def now(self) -> float:
        """Virtual monotonic seconds."""
        return self.agenda.now

    def story(self) -> str:
        """The transcript so far."""
        return "\n".join(self.log)

    def living(self, pool: str = "") -> list[FakeProcess]:
        """The truth: processes whose tree is not empty, of one pool or of all."""
        found = [p for p in self.host.processes.values() if not p.empty]
        return [p for p in found if not pool or self.pool_of(p.id) == pool]

    def serving(self, pool: str) -> list[FakeProcess]:
        """Those of `living` that are there for the pool's work, not to be tried out."""
        return [p for p in self.living(pool) if self.roles[p.id] == "serve"]

    @staticmethod
    def pool_of(process_id: str) -> str:
        """The pool in an id."""
        return process_id.rpartition("@")[0].rpartition(".")[0]

    @staticmethod
    def slot_of(process_id: str) -> int:
        """The slot in an id."""
        return int(process_id.rpartition("@")[0].rpartition(".")[2])

    @staticmethod
    def generation_of(process_id: str) -> int:
        """The generation in an id."""
        return int(process_id.rpartition("@g")[2].partition(".")[0])

    # operators

    def reload(self, *specs: PoolSpec) -> None:
        """Accept a whole config."""
        self.specs = {spec.name: spec for spec in specs}
        self._operator("reload", ", ".join(self.specs))
        self._change(intents.accept(self.intent, self.specs, self.now, reason="its config changed"))

    def reload_with(self, spec: PoolSpec) -> None:
        """Accept the config with one pool's spec in place of its old one."""
        self.reload(*{**self.specs, spec.name: spec}.values())

    def scale(self, pool: str, workers: int | None) -> None:
        """`scale pool=workers`."""
        self._operator(f"scale {pool}", str(workers))
        self._change(intents.scale(self.intent, pool, workers))

    def stop(self, *pools: str) -> None:
        """`stop pools`."""
        self._operator("stop", ", ".join(pools))
        self._change(intents.stop(self.intent, pools, "an operator asked"))

    def start(self, *pools: str) -> None:
        """`start pools`: failures are forgotten first."""
        self._operator("start", ", ".join(pools))
        self._forgive(pools)
        self._change(intents.start(self.intent, pools))

    def restart(self, *pools: str) -> None:
        """`restart pools`."""
        self._operator("restart", ", ".join(pools))
        self._forgive(pools)
        self._change(intents.start(intents.restart(self.intent, pools, self.now, "restart"), pools))

    def rollback(self, *pools: str) -> None:
        """`rollback pools`."""
        self._operator("rollback", ", ".join(pools))
        self._forgive(pools)
        self._change(intents.rollback(self.intent, pools, self.now, "rollback"))

    def shut_down(self) -> None:
        """A first SIGTERM."""
        self._operator("shut down", "")
        self._rule(intents.shut_down(self.intent, "SIGTERM"))
        self.turn()

    def kill_now(self) -> None:
        """A third SIGTERM."""
        self._operator("kill now", "")
        self._rule(intents.kill_now(intents.shut_down(self.intent, "SIGTERM")))
        self.turn()

    # fate

    def crash(self, process_id: str, ended: Exit) -> None:
        """Somebody kills a main process."""
        self._operator(f"crash {process_id}", "")
        self.host.crash(process_id, ended)
        self.turn()

    def lose_shim(self, process_id: str) -> None:
        """Somebody kills a shim."""
        self._operator(f"lose shim {process_id}", "")
        self.host.lose_shim(process_id)
        self.turn()

    def hang(self, process_id: str) -> None:
        """A process is seen to make no progress."""
        self._operator(f"hang {process_id}", "")
        self._post(self._life, ev.FoundStuck(process_id, "its loop hangs"))
        self.turn()

    def kill_daemon(self, seconds: float = 0.0) -> None:
        """The daemon dies; the next one starts some seconds later and adopts what it finds."""
        self._operator("daemon dies", f"for {seconds:g} s")
        self._die(seconds)

    # time

    def advance(self, seconds: float) -> None:
        """Let time pass, from one happening or planned wake to the next."""
        end = self.now + seconds
        while True:
            due = min(at for at in (self.agenda.next_at, self.wake_at, end) if at is not None)
            until = min(due, end)
            self._nothing_before(until)
            woken = self.wake_at is not None and self.wake_at <= until
            self.agenda.advance(until)
            if self._inbox or woken:
                self.turn()
            if until >= end:
                return

    def _nothing_before(self, until: float) -> None:
        """Without a new fact nothing may be planned before the instant that the plan named."""
        just_before = math.nextafter(until, -math.inf)
        if just_before > self.now:
            made = plan(self.desired, self.observed, just_before)
            if made.actions:
                self.broken = True
                raise AssertionError(f"wake_at is too late for {made.actions}\n{self.story()}")

    # the daemon

    def turn(self) -> None:
        """One turn of the loop; a death in the middle of it is followed by the next daemon's first turn."""
        try:
            self._turn()
        except DaemonDiedError:
            self.log.append(f"{self.now:9.3f} *** the daemon dies in the middle of a turn")
            self._die(0.0)
        except Exception as error:
            if not self.broken:
                self.broken = True
                error.add_note(self.story())
            raise

    def _turn(self) -> None:
        while self._inbox:
            event = self._inbox.popleft()
            self._fold(event)
            self._note_progress(getattr(event, "id", ""))
        for _ in range(MAX_ROUNDS):
            made = plan(self.desired, self.observed, self.now)
            assert made.wake_at is None or made.wake_at > self.now
            if not made.actions:
                self.wake_at = made.wake_at
                self.invariants.settled()
                return
            self.seen, self.seen_desired = self.observed, self.desired
            for action in made.actions:
                self._perform(action)
        raise AssertionError(f"the plan does not settle in {MAX_ROUNDS} rounds")

    def _post(self, life: int, event: ev.Event) -> None:
        if life == self._life:
            self._inbox.append(event)

    def _fold(self, event: ev.Event) -> None:
        before = self.observed
        self._tell(describe_event(event, before))
        self.observed = evolve(before, event, self.now)
        self.invariants.folded(before, event)
        match event:
            case ev.Spawned(id):
                self._attend(id)
            case ev.Adopted(process):
                self._noted[process.id] = Progress.of(process)
                if process.pid is not None:
                    self._attend(process.id)
                if process.stop is not None:
                    self._tell_tasks(process.id)
            case ev.StopSignalled(id):
                self._tell_tasks(id)
            case _:
                pass

    def _perform(self, action: act.Action) -> None:
        self._tell(describe_action(action))
        self.invariants.planned(action)
        event = performed(action)
        if event is not None:
            self._fold(event)
        self._may_die()
        self._effect(action)
        self._note_progress(getattr(action, "id", ""))

    def _may_die(self) -> None:
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.dies_after = None
                raise DaemonDiedError

    def _note_progress(self, process_id: str) -> None:
        process = self.observed.find(process_id)
        if process is None or process.ended:
            self._noted.pop(process_id, None)
            return
        progress = Progress.of(process)
        if self._noted.setdefault(process_id, progress) != progress:
            self._noted[process_id] = progress
            self.host.note(process_id, encode(progress))

    def _effect(self, action: act.Action) -> None:
        """Stacks are written to no log here."""
        match action:
            case act.Spawn():
                self._spawn(action)
            case act.Signal(id, signal):
                self.host.signal(id, signal)
            case act.DriverStep(id, word, step):
                self._driver_step(id, word, step)
            case act.Kill(id):
                self.host.kill(id)
            case act.Scale(id, workers):
                self._scale(id, workers)
            case act.Restore(id):
                self.agenda.at(self.now + RESTORING_SECONDS, partial(self._restore, self._life, id))
            case act.Forget(id):
                self.host.forget(id)
            case act.RecordSuccess(pool, generation, reason):
                kept = act.ConcludeRollout(pool, generation, "succeeded", reason)
                self._rule(intents.conclude(self.intent, kept, self.now), stored=True)
                self._may_die()
                self.stored_successes = {n: tuple(sorted(f.successes)) for n, f in self.observed.pools.items()}
            case act.PassGate():
                self._rule(intents.pass_gate(self.intent, action), stored=True)
            case act.ConcludeRollout():
                self._rule(intents.conclude(self.intent, action, self.now), stored=True)
            case act.DropPool(pool):
                self._rule(intents.drop(self.intent, pool), stored=True)

    def _spawn(self, action: act.Spawn) -> None:
        process = self.observed.find(action.id)
        assert process is not None
        self.scripts[action.id] = self._script(action)
        self.roles[action.id] = action.role
        facts = encode(RecordedFacts.of(process, action.epoch))
        self.host.spawn(action.id, Launch(("/program",), {}, "/"), (), facts)
        self.host.processes[action.id].workers = action.workers
        self.invariants.spawned(action)

    def _script(self, action: act.Spawn) -> Script:
        pool = self.intent.pools[action.pool]
        versions = [v for v in (pool.wanted, pool.previous) if v is not None and v.generation == action.generation]
        script: Script = versions[0].spec.keys
        if self.calm:
            script = WORK if action.policy.traits.oneshot else GOOD
        if action.role == "preflight":
            script = REFUSES if script is CRASH_AT_BOOT else IMPORTS
        if self.refusals:
            self.refusals -= 1
            return replace(script, refused="cannot fork: resource temporarily unavailable")
        return script

    # who looks after processes: they answer when their script says so, and again to each daemon that asks

    def _attend(self, process_id: str) -> None:
        process = self.host.processes[process_id]
        if process.ready_at is not None:
            self.agenda.at(process.ready_at, partial(self._answer, self._life, process))

    def _answer(self, life: int, process: FakeProcess) -> None:
        if process.runs:
            self._post(life, ev.BecameReady(process.id))

    def _scale(self, process_id: str, workers: int) -> None:
        if self.lost_scales:
            self.lost_scales -= 1
            return
        process = self.host.processes[process_id]
        if not process.script.resizable and process.workers != workers:
            self._post(self._life, ev.ScaleRefused(process_id, workers, "its script says no"))
            return
        self.agenda.at(self.now + SCALING_SECONDS, partial(self._count, self._life, process, workers))

    def _count(self, life: int, process: FakeProcess, workers: int) -> None:
        if process.runs:
            process.workers = workers
            self._post(life, ev.WorkersReported(process.id, workers, workers))

    # steps of a stop that are no signals, the work that is left, and what was held at the end

    def _driver_step(self, process_id: str, word: str, step: int) -> None:
        process = self.host.processes[process_id]
        done = partial(self._step_done, self._life, process, step)
        if not process.runs:
            self._post(self._life, ev.StepDone(process_id, step))
        elif word == "KILL-WORKERS":
            self.host.signal(process_id, word)
        else:
            process.stop_asked = True
            if process.script.drain_seconds is not None:
                self.agenda.at(self.now + process.script.drain_seconds, done)

    def _step_done(self, life: int, process: FakeProcess, step: int) -> None:
        if process.runs:
            self._post(life, ev.StepDone(process.id, step))

    def _tell_tasks(self, process_id: str) -> None:
        process = self.host.processes[process_id]
        if not process.script.unsafe_seconds or not process.runs:
            return
        if process.busy_until is None:
            process.busy_until = self.now + process.script.unsafe_seconds
        busy = TasksLeft(1, 0, 1, self.now, "work") if self.now < process.busy_until else TasksLeft()
        self._post(self._life, ev.TasksReported(process_id, busy))
        if busy.active:
            self.agenda.at(process.busy_until, partial(self._all_safe, self._life, process))

    def _all_safe(self, life: int, process: FakeProcess) -> None:
        if process.runs:
            self._post(life, ev.TasksReported(process.id, TasksLeft()))

    def _restore(self, life: int, process_id: str) -> None:
        if life == self._life and self.lost_restores:
            self.lost_restores -= 1
            away = self.lost_restores % 2 == 0
            self._post(life, ev.RestoreFailed(process_id, "connection refused" if away else "no such key", away))
        else:
            self.restored.add(process_id)
            self._post(life, ev.Restored(process_id, "", 0))

    # its end and its beginning

    def _die(self, seconds: float) -> None:
        self._life += 1
        self.dies_after = None
        self.host.detach()
        self._inbox.clear()
        self._noted.clear()
        self.agenda.advance(self.now + seconds)
        self.observed = Observed()
        self.invariants.reborn()
        self._rule(intents.revived(self.stored))
        for pool, generations in self.stored_successes.items():
            for generation in generations:
                self._inbox.append(ev.SuccessRecorded(pool, generation))
        found = self.host.adopt(partial(self._post, self._life))
        self._inbox.extend(adoption_events(found, self.intent, self.now))
        self.agenda.advance(self.now)
        self.turn()

    def _rule(self, intent: Intent, *, stored: bool = False) -> None:
        self.invariants.ruled(self.intent, intent)
        self.intent = intent
        if stored:
            self.stored = intent
        self.desired = derive(intent, KINDS)

    def _change(self, intent: Intent) -> None:
        self._rule(intent, stored=True)
        self.turn()

    def _forgive(self, pools: tuple[str, ...]) -> None:
        for pool in pools:
            if pool in self.observed.pools:
                self._post(self._life, ev.FailureCleared(pool))

    # the transcript

    def _operator(self, what: str, detail: str) -> None:
        self.invariants.disturbed(what)
        self.log.append(f"{self.now:9.3f} >>> {what} {detail}")

    def _tell(self, note: Note | None) -> None:
        if note is not None:
            mark = "->" if note.kind == "action" else "  "
            self.log.append(f"{self.now:9.3f} {mark} {note.name} {note.subject}: {note.reason}")

"""Compare what is wanted with what is, and say what to do now and when to look again.

Theory.  `plan` is pure, idempotent and total.  *Idempotent*: performing an action yields the event (see core.actions)
that keeps the next plan from asking for it again, so planning after every event is safe.  *Total*: adoption may hand it
any state a former daemon left.  There is no code path for shutdown, rollback or pause: they are values in Desired.

For each pool, in this order:

1. deadlines   a start that took too long is stopped; a stop step that ran out is followed by the next; KILL is last
2. verdict     a gate was passed (core.trial), or a rollout is concluded: kept, or rolled back
3. spawn       slots without a current process get one, within dependencies, backoff, budget and starts at once
4. retire      what is outdated or surplus is stopped, as far as availability allows
5. settle      sizes in place, successes written down, empty records forgotten
6. wake        the earliest instant at which any of this would come out differently without a new fact

Words, beside those of core.capacity: a spawn beside a main process of its slot that still runs is a *surge*, and surges
never take the pool above `slots + max_surge`, draining processes included.  A spawn into a free slot replaces what was
there, so no budget can hold it back: a long drain must not keep a crashed worker down.

Worked example, one slot, max_surge 1, max_unavailable 0, `web` rolls from g1 to g2:

    web.0@g1 ready                          -> Spawn web.0@g2       (surge: 1 + 1 <= 1 + 1)
    web.0@g1 ready, web.0@g2 starting       -> nothing, wake at the start deadline
    web.0@g1 ready, web.0@g2 ready          -> Signal web.0@g1 TERM (its slot is served without it)
    web.0@g1 stopping, web.0@g2 ready       -> ConcludeRollout succeeded; wake at the stop deadline
    web.0@g1 exited and empty               -> Forget web.0@g1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from supervisor_d.core import actions as act
from supervisor_d.core import aftercare, handover, rollout, stopping, trial
from supervisor_d.core.capacity import Capacity
from supervisor_d.core.dependencies import held_by, waits_for
from supervisor_d.core.desired import Desired, DesiredPool
from supervisor_d.core.observed import Observed, PoolFacts, SlotFacts
from supervisor_d.core.process import Policy, Process, State, StopProgress, process_id
from supervisor_d.core.spec import DRIVER_STEPS, Role

SCALE_RETRY_SECONDS = 10.0
STACKS_SECONDS = 1.0
"""For a stuck process to write its stacks."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order, and when to plan again if nothing happens before (monotonic; None: never)."""

    actions: tuple[act.Action, ...] = ()
    wake_at: float | None = None


@dataclass(slots=True)
class _Draft:
    """A plan in the making, shared by all pools of one call."""

    desired: Desired
    observed: Observed
    now: float
    serial: int
    starting: int
    actions: list[act.Action] = field(default_factory=list)
    wake_at: float | None = None

    def wake(self, at: float | None) -> None:
        if at is not None and at > self.now and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at


def plan(desired: Desired, observed: Observed, now: float) -> Plan:
    """The actions that bring what is observed nearer to what is desired, at the instant `now`."""
    starting = sum(1 for p in observed.processes() if p.state is State.STARTING)
    draft = _Draft(desired, observed, now, observed.next_serial, starting)
    for pool in (*desired.pools.values(), *_strangers(desired, observed)):
        _PoolPlan(draft, pool, observed.pool(pool.name)).run()
    return Plan(tuple(draft.actions), draft.wake_at)


def _strangers(desired: Desired, observed: Observed) -> Iterator[DesiredPool]:
    """Pools that nobody wants any more but of which something was adopted: to be stopped and dropped."""
    for name in sorted(observed.pools.keys() - desired.pools.keys()):
        for process in observed.pools[name].processes.values():
            reason = "no accepted config has its pool"
            yield DesiredPool(name, 0, (), process.policy, running=False, stop_reason=reason, removed=True)
            break


class _PoolPlan:
    """The part of a plan that concerns one pool."""

    def __init__(self, draft: _Draft, pool: DesiredPool, facts: PoolFacts) -> None:
        self.draft = draft
        self.pool = pool
        self.facts = facts
        self.now = draft.now
        self.processes = tuple(facts.processes.values())
        self.capacity = Capacity(pool, facts, draft.now)
        self.touched: set[str] = set()
        """Processes that this plan already acts on: one action a process and plan."""

    def run(self) -> None:
        self._deadlines()
        self._wake_when_settled()
        if self._tried() or self._concluded():
            return
        if self.pool.running and not self.draft.desired.kill_now:
            self._spawn()
            self._try_out()
            self._retire_outdated()
            self._scale_in_place()
        else:
            self._retire_all()
        self._settle()

    def _do(self, action: act.Action, process: Process | None = None) -> None:
        if process is not None:
            self.touched.add(process.id)
        self.draft.actions.append(action)

    # 1. deadlines

    def _deadlines(self) -> None:
        for process in self.processes:
            if process.ended and process.empty:
                continue
            if self.draft.desired.kill_now and not process.kill_sent:
                self._do(act.Kill(process.id, "asked to end at once", True), process)
            elif process.stop is not None:
                self._next_step(process, process.stop)
            elif process.ended and process.shim_lost:
                self._do(act.Kill(process.id, "its shim died: what is left of its tree has no keeper", True), process)
            elif process.state is State.STARTING:
                self._start_deadline(process)
            elif process.stuck and not process.ended:
                self._replace_stuck(process)

    def _next_step(self, process: Process, stop: StopProgress) -> None:
        if stop.deadline is None or process.kill_sent:
            return
        due = stopping.next_step_at(process, stop)
        if self.now < due:
            self.draft.wake(due)
            return
        reason = stopping.why_next(process, stop, self.now)
        self._stop_step(process, stop.step + 1, reason, expected=stop.expected)

    def _start_deadline(self, process: Process) -> None:
        """Counted from when this daemon knew it as starting: an adopted one has the whole time to answer again."""
        limit = process.policy.start_timeout_seconds
        if self.now < process.since + limit:
            self.draft.wake(process.since + limit)
            return
        why = f": {process.unready}" if process.unready else ""
        self._stop(process, f"not ready within {limit:g} s{why}", expected=False)

    def _replace_stuck(self, process: Process) -> None:
        """Its stacks first: they are all that will ever tell what it was stuck in."""
        if process.stacks_asked_at is None:
            self._do(act.TakeStacks(process.id, f"stuck: {process.stuck}: its stacks go to its log"), process)
        elif self.now < (written := process.stacks_asked_at + STACKS_SECONDS):
            self.draft.wake(written)
        else:
            self._stop(process, f"stuck: {process.stuck}", expected=False)

    def _stop(self, process: Process, reason: str, *, expected: bool) -> None:
        """Begin the stop list.  Nothing runs yet in a process without a pid: it is killed at its gate."""
        step = len(process.policy.stop) - 1 if process.pid is None else 0
        self._stop_step(process, step, reason, expected=expected)

    def _stop_step(self, process: Process, step: int, reason: str, *, expected: bool) -> None:
        wanted, left = process.policy.stop[step], stopping.left(process, self.now)
        if wanted.signal == "KILL" or process.ended:
            self._do(act.Kill(process.id, reason, expected, left), process)
            return
        deadline = self.now + wanted.wait_seconds
        self.draft.wake(deadline)
        kind = act.DriverStep if wanted.signal in DRIVER_STEPS else act.Signal
        self._do(kind(process.id, wanted.signal, step, deadline, reason, expected, left), process)

    # 2. verdict

    def _tried(self) -> bool:
        """Pass a gate or fail at it; what is desired changes by it, so the pool is planned anew afterwards."""
        wanted = self.pool.trial
        found = trial.verdict(wanted, self.facts, self.now) if wanted is not None and self.pool.running else None
        if wanted is None or found is None:
            return False
        if found.passed:
            self._do(act.PassGate(self.pool.name, wanted.generation, wanted.gate, found.reason))
        else:
            log = "" if wanted.doomed else f"{self.pool.name}.{wanted.gate}"
            self._do(act.ConcludeRollout(self.pool.name, wanted.generation, "rolled-back", found.reason, log))
        return True

    def _concluded(self) -> bool:
        """Conclude the rollout if it can be; what is desired changes by it, so the pool is planned anew afterwards."""
        pool = self.pool
        if pool.rollout is None or not pool.running:
            return False
        if failed := rollout.failure(pool, self.facts):
            log = f"{pool.name}.{failed.slot}"
            self._do(act.ConcludeRollout(pool.name, pool.generation, "rolled-back", failed.reason, log))
            return True
        if rollout.complete(pool, self.facts, self.now):
            reason = f"all of g{pool.generation} ready ({pool.rollout.reason})"
            self._do(act.ConcludeRollout(pool.name, pool.generation, "succeeded", reason))
            return True
        return False

    # 3. spawn

    def _try_out(self) -> None:
        """One process at the gate of the trial, and none where there is no trial any more."""
        wanted = self.pool.trial
        tried = trial.candidate(wanted, self.facts) if wanted is not None else None
        for process in self.facts.tried:
            if process is not tried and process.live and process.id not in self.touched:
                self._stop(process, f"its trial as {process.role} is over", expected=True)
        if wanted is None or wanted.waits_for or tried is not None or not self._may_start():
            return
        if waits_for(self.pool, self.draft.desired, self.draft.observed):
            return
        self._start(0, wanted.generation, wanted.workers, wanted.policy, wanted.reason, wanted.gate)

    def _may_start(self) -> bool:
        return self.draft.starting < self.draft.desired.starts_at_once

    def _start(self, slot: int, generation: int, workers: int, policy: Policy, reason: str, role: Role) -> None:
        pool, draft = self.pool, self.draft
        draft.starting += 1
        process = process_id(pool.name, slot, generation, draft.serial)
        self._do(act.Spawn(process, pool.name, slot, generation, workers, policy, pool.epoch, reason, role))
        draft.serial += 1

    def _slot(self, slot: int) -> SlotFacts:
        return self.facts.slots.get((slot, self.pool.generation)) or SlotFacts()

    def _spawn(self) -> None:
        if self.pool.policy.traits.oneshot and self.pool.generation in self.facts.successes:
            return
        if waits_for(self.pool, self.draft.desired, self.draft.observed):
            return
        others: dict[int, list[Process]] = {}
        for process in self.facts.serving:
            if not (process.ended and process.empty):
                others.setdefault(process.slot, []).append(process)
        for slot in range(len(self.pool.sizes)):
            if slot not in self.capacity.current:
                self._spawn_slot(slot, others.get(slot, []))

    def _spawn_slot(self, slot: int, others: list[Process]) -> None:
        history = self._slot(slot)
        if history.failed or history.finished:
            return
        if self.now < history.not_before:
            self.draft.wake(history.not_before)
            return
        if self._may_start() and self._room(others):
            pool, reason = self.pool, self._spawn_reason(history, others)
            workers = handover.first_size(pool, self.facts, slot)
            self._start(slot, pool.generation, workers, pool.policy, reason, "serve")

    def _room(self, others: list[Process]) -> bool:
        """Whether a process may be started beside the others of its slot."""
        if self.capacity.stops_first and (
            self._planned() or any(not (p.ended and p.empty) for p in self.facts.serving)
        ):
            return False
        if self.capacity.unproven and self._probing():
            return False
        running = [p for p in others if not p.ended]
        if self.pool.policy.traits.respawn == "when-empty" and len(running) < len(others):
            return False
        if not running:
            return True
        if any(p.fault for p in running):
            return False
        occupied = sum(1 for p in self.facts.serving if not p.ended) + self._planned()
        return occupied + 1 <= len(self.pool.sizes) + self.pool.rollout_policy.max_surge

    def _planned(self) -> int:
        spawns = (a for a in self.draft.actions if isinstance(a, act.Spawn))
        return sum(1 for a in spawns if a.pool == self.pool.name and a.role == "serve")

    def _probing(self) -> bool:
        """Whether a process of the wanted generation is already being tried."""
        wanted = (p for p in self.facts.serving if p.generation == self.pool.generation and not p.shim_lost)
        return self._planned() > 0 or any(p.live for p in wanted)

    def _spawn_reason(self, history: SlotFacts, others: list[Process]) -> str:
        if history.attempt and all(p.ended for p in others):
            return f"restart {history.attempt}: {history.last_reason}"
        if self.pool.rollout is not None:
            return f"rollout to g{self.pool.generation}: {self.pool.rollout.reason}"
        if any(p.shim_lost for p in others):
            return "its predecessor lost its shim"
        if why := next((p.ailing for p in others if p.ailing), ""):
            return f"in place of a process that is not well: {why}"
        return f"{self.pool.name} wants {sum(self.pool.sizes)} workers"

    # 4. retire

    def _retire_all(self) -> None:
        if held_by(self.pool, self.draft.desired, self.draft.observed):
            return
        for process in self.processes:
            if process.live and process.id not in self.touched:
                self._stop(process, self.pool.stop_reason, expected=True)

    def _retire_outdated(self) -> None:
        for process in self.capacity.may_go():
            if process.id not in self.touched:
                self._stop(process, self.capacity.why_outdated(process), expected=True)

    def _wake_when_settled(self) -> None:
        wanted = self.pool.trial
        for process in self.processes:
            if process.state is State.READY and process.ready_at is not None:
                policy = wanted if wanted is not None and process.role != "serve" else self.pool.rollout_policy
                self.draft.wake(process.ready_at + policy.min_ready_seconds)

    # 5. settle

    def _scale_in_place(self) -> None:
        if not self.pool.policy.traits.scale_in_place:
            return
        for current in self.capacity.current.values():
            if current.state is not State.READY or current.id in self.touched:
                continue
            for sharer, wanted in handover.shares(self.pool, self.facts, current).items():
                self._scale(self.facts.processes[sharer], wanted)

    def _scale(self, process: Process, wanted: int) -> None:
        if process.id in self.touched or process.resize_refused:
            return  # what does not fit is replaced
        if process.scale_asked == wanted:
            retry_at = process.scale_asked_at + SCALE_RETRY_SECONDS
            self.draft.wake(retry_at)
            if self.now < retry_at:
                return
        elif process.scale_asked is None and process.workers == wanted:
            return
        has = f"has {process.workers}" if process.workers else "its size was set by a former daemon"
        reason = f"{self.pool.name} wants {wanted} workers, {has}"
        if process.generation != self.pool.generation or wanted != self.pool.sizes[process.slot]:
            reason = f"g{self.pool.generation} takes over one by one: {wanted} workers here, {has}"
        self._do(act.Scale(process.id, wanted, reason), process)

    def _settle(self) -> None:
        pool = self.pool
        succeeded = pool.policy.traits.oneshot and self._slot(0).ended_well
        if succeeded and pool.generation not in self.facts.successes:
            self._do(act.RecordSuccess(pool.name, pool.generation, "exited with code 0"))
        for process in self.processes:
            if process.ended and process.empty:
                self._care_for(process)
        if pool.removed and not self.processes:
            self._do(act.DropPool(pool.name, "it left the config and nothing of it is left"))

    def _care_for(self, process: Process) -> None:
        """What it held is given back, and then it is forgotten."""
        care = process.aftercare
        if not aftercare.needed(process):
            failed = f"; what it held could not be given back: {care.last_error}" if care.last_error else ""
            self._do(act.Forget(process.id, f"its tree is empty{failed}"))
        elif self.now < care.not_before:
            self.draft.wake(care.not_before)
        elif not care.under_way:
            again = f", try {care.attempts + 1}" if care.attempts else ""
            self._do(act.Restore(process.id, f"its tree is empty: what it held goes back{again}"))

"""What must hold at every instant of every world, checked against the truth of the FakeHost wherever that knows better.

The names of the methods below are the list.  What is excused is excused by what an operator or fate did, never by what
the daemon decided: a guard on availability, for instance, falls with a crash, a stop or a scale of that pool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core.dependencies import pool_is_ready
from supervisor_d.core.desired import DesiredPool
from supervisor_d.core.intent import Intent
from supervisor_d.core.observed import Observed
from supervisor_d.core.process import Process, State
from supervisor_d.core.snapshot import DaemonView, Usage
from supervisor_d.core.spec import DRIVER_STEPS
from supervisor_d.core.stopping import LEAVING_SECONDS, UNTOLD_SECONDS
from supervisor_d.core.view import Sources, pool_state, snapshot
from tests.sim.pools import is_bad, sizes, traits_of
from tests.support.fake_host import FakeProcess

if TYPE_CHECKING:
    from tests.sim.world import World

WORDS = {
    "running", "starting", "waiting", "rolling", "degraded", "backoff", "failed", "stopping", "stopped", "done",
}  # fmt: skip
DAEMON = DaemonView("0", 1, "running", 0.0, "", "", "", 0.0, 0.0, 0, 0, 0, 0.0, 0)


class Invariants:
    """Looks at every fact, action and settled turn of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.guarded: dict[str, int] = {}
        """Pools whose capacity may not drop, with the generation they roll to."""
        self.tried: dict[tuple[str, int, str], list[FakeProcess]] = {}
        """Processes of a bad generation that were asked for while their rollout was under way, by gate."""
        self.unexpected: dict[tuple[str, int, int], float] = {}
        """When a slot's process last ended by itself."""
        self.rolled_back: dict[str, int] = {}
        """Pools whose next intent must want that generation again."""
        self.steps: dict[str, dict[int, float]] = {}
        """When each step of a process's stop list was sent."""
        self.done: dict[tuple[str, int], float] = {}
        """When a step of a process's stop list said that it did all it can."""
        self.unsafe: dict[str, float] = {}
        """When a process's unsafe work ended, as far as told; infinite while it goes on."""
        self.successes: set[tuple[str, int]] = set()
        self.totals: dict[str, Counter[str]] = {}

    # hooks

    def planned(self, action: act.Action) -> None:
        """Before an action is performed."""
        match action:
            case act.Spawn():
                if action.role == "serve":
                    self._spawn_is_due(action)
                    self._spawn_is_within_budget(action)
                    self._dependencies_were_ready(action)
                    self._oneshot_runs_once(action)
                else:
                    self._trial_is_alone(action)
                self._bad_generation_is_tried_once(action)
            case act.Signal() | act.DriverStep():
                self._stop_goes_by_its_list(action)
                self._stop_is_in_reverse_order(action.id)
                self._old_generation_is_kept(action.id, action.reason)
            case act.Kill():
                self._kill_comes_at_its_deadline(action)
                self._old_generation_is_kept(action.id, action.reason)
            case act.Forget(id):
                self._nothing_is_held_any_more(id)
            case act.ConcludeRollout():
                self._rollback_goes_back(action)
                self.guarded.pop(action.pool, None)
            case _:
                pass

    def folded(self, before: Observed, event: ev.Event) -> None:
        """After a fact was folded in."""
        match event:
            case ev.MainExited(id, ended):
                process = before.find(id)
                assert process is not None
                if process.stop is None or not process.stop.expected:
                    self._ended_by_itself(process)
                if process.policy.traits.oneshot and process.stop is None and ended.ok:
                    self.successes.add((process.pool, process.generation))
            case ev.SpawnFailed(id):
                process = before.find(id)
                assert process is not None
                if process.stop is None or not process.stop.expected:
                    self._ended_by_itself(process)
            case ev.Adopted(process) if process.stop is None:
                self.steps.pop(process.id, None)
            case ev.StepDone(id, step):
                self.done.setdefault((id, step), self.world.now)
            case ev.TasksReported(id, tasks) if tasks.unsafe or id in self.unsafe:
                self.unsafe[id] = math.inf if tasks.unsafe else min(self.unsafe[id], self.world.now)
            case ev.ShimLost(id):
                self._disturb(self.world.pool_of(id))
            case ev.PoolRemoved(pool) | ev.FailureCleared(pool):
                self._forget(pool)
                if isinstance(event, ev.PoolRemoved):
                    self.successes = {key for key in self.successes if key[0] != pool}
            case _:
                pass

    def ruled(self, before: Intent, after: Intent) -> None:
        """The intent changed: a rollout of a pool that serves wholly puts its capacity under guard."""
        for name, generation in self.rolled_back.items():
            assert after.pools[name].wanted.generation == generation, f"{name} is not back at g{generation}"
        self.rolled_back.clear()
        for name, pool in after.pools.items():
            old = before.pools.get(name)
            if old is None or old == pool:
                continue
            spec, size = pool.wanted.spec, pool.wanted_workers
            same_size = sizes(spec, size) == sizes(old.wanted.spec, old.wanted_workers)
            keeps = spec.rollout.max_unavailable == 0 and spec.rollout.max_surge > 0
            stops_first = traits_of(spec).exclusive or traits_of(spec).oneshot
            if not same_size or not pool.running or not keeps or stops_first:
                self._disturb(name)
            elif (
                pool.previous is not None
                and pool.wanted != old.wanted
                and self._serves_wholly(name, len(sizes(spec, size)))
            ):
                self.guarded[name] = pool.wanted.generation

    def disturbed(self, what: str) -> None:
        """An operator or fate acts: a crash or a lost shim excuses its pool."""
        words = what.split()
        if words[0] in ("crash", "lose", "hang"):
            self._disturb(self.world.pool_of(words[-1]))
        if words[0] in ("shut", "kill"):
            self.guarded.clear()
            self.tried.clear()

    def reborn(self) -> None:
        """A new daemon: it knows nothing of ends, stops and totals that the former one saw.

        A spawn that was under way may be tried again, whatever becomes of it.
        """
        self.tried = {key: [p for p in tried if p.pid is not None] for key, tried in self.tried.items()}
        self.rolled_back.clear()
        self.unexpected.clear()
        self.totals.clear()

    def settled(self) -> None:
        """After a turn: nothing is left to be done at this instant."""
        desired = self.world.desired
        for name, pool in desired.pools.items():
            self._exclusive_is_alone(pool)
            self._slots_have_one_current(pool)
            self._capacity_is_kept(name, pool)
            word, _ = pool_state(pool, desired, self.world.observed, self.world.now)
            assert word in WORDS
        for process in self.world.observed.processes():
            self._no_deadline_has_passed(process)
        self._totals_only_grow()
        self._view_is_total()

    # spawn

    def _spawn_is_due(self, action: act.Spawn) -> None:
        """No restart before its backoff: at least the shortest that the jitter allows."""
        history = self.world.observed.pool(action.pool).slots.get((action.slot, action.generation))
        assert history is None or not (history.failed or history.finished), f"{action.id}: its slot has given up"
        ended = self.unexpected.get((action.pool, action.slot, action.generation))
        if history is None or ended is None or history.attempt < 2:
            return
        policy = action.policy.restart
        delay = min(policy.backoff_initial_seconds * 2 ** (history.attempt - 2), policy.backoff_max_seconds)
        assert self.world.now >= ended + delay * (1 - policy.jitter) - 1e-9, f"{action.id} forgot its backoff"

    def _spawn_is_within_budget(self, action: act.Spawn) -> None:
        world = self.world
        processes = [p for p in world.observed.pool(action.pool).serving if not p.ended]
        desired = world.desired.pools[action.pool]
        if any(p.slot == action.slot for p in processes):
            most = len(desired.sizes) + desired.rollout_policy.max_surge
            assert len(processes) + 1 <= most, f"{action.id} is one surge too many: {[p.id for p in processes]}"
        starting = sum(1 for p in world.observed.processes() if p.state is State.STARTING and not p.adopted)
        assert starting + 1 <= world.desired.starts_at_once, f"{action.id}: too many start at once"
        if desired.policy.traits.respawn == "when-empty":
            left = [p.id for p in self.world.serving(action.pool) if self._leftover(p, action)]
            assert not left, f"{action.id} starts beside what is left of {left}"

    def _leftover(self, process: FakeProcess, action: act.Spawn) -> bool:
        return process.exit is not None and self.world.slot_of(process.id) == action.slot

    def _workers_are_never_more_than_one_too_many(self, process_id: str, workers: int) -> None:
        """One by one: what may run when this is done, the truth of every worker counted."""
        world = self.world
        pool = world.desired.pools[world.pool_of(process_id)]
        if pool.rollout is None or not pool.rollout.one_by_one or pool.name not in self.guarded:
            return
        others = (p for p in world.serving(pool.name) if p.id != process_id and p.runs and not p.stop_asked)
        most = sum(pool.sizes) + 1
        assert workers + sum(p.workers or 0 for p in others) <= most, f"{process_id} gets {workers}: too many workers"

    def _trial_is_alone(self, action: act.Spawn) -> None:
        """One process is tried at a time, for a rollout that is under way, of a generation that nothing serves for."""
        world = self.world
        others = [p.id for p in world.observed.pool(action.pool).tried if p.live]
        assert not others, f"{action.id} is tried beside {others}"
        intent = world.intent.pools[action.pool]
        assert intent.previous is not None, f"{action.id} is tried for nothing"
        assert intent.wanted.generation == action.generation, f"{action.id} is tried for nothing"
        assert not any(p.generation == action.generation for p in world.observed.pool(action.pool).serving)

    def _dependencies_were_ready(self, action: act.Spawn) -> None:
        world = self.world
        pool = world.desired.pools[action.pool]
        assert pool.running, f"{action.id} starts although its pool is to stop"
        if world.observed.pool(action.pool).admitted_epoch == pool.epoch:
            return
        for name in pool.after:
            other = world.seen_desired.pools.get(name)
            assert other is None or pool_is_ready(other, world.seen), f"{action.id} starts before {name} is ready"

    def _oneshot_runs_once(self, action: act.Spawn) -> None:
        again = action.policy.traits.oneshot and (action.pool, action.generation) in self.successes
        assert not again, f"{action.id} runs again although it succeeded"

    def _bad_generation_is_tried_once(self, action: act.Spawn) -> None:
        key = (action.pool, action.generation, action.role)
        intent = self.world.intent.pools[action.pool]
        judged = intent.previous is not None and intent.wanted.generation == action.generation
        if not judged or self.world.calm or not is_bad(intent.wanted.spec.keys):
            return
        tried = [p.id for p in self.tried.get(key, ()) if p.pid is not None or p.failed == p.script.refused != ""]
        assert not tried, f"{action.id}: g{action.generation} was tried before by {tried}"

    def spawned(self, action: act.Spawn) -> None:
        """After the host was asked."""
        self.steps.pop(action.id, None)  # a number may be given again, when nothing was left for a daemon to adopt
        self.unsafe.pop(action.id, None)
        self.done = {key: at for key, at in self.done.items() if key[0] != action.id}
        process = self.world.host.processes[action.id]
        if self.world.intent.pools[action.pool].previous is not None and is_bad(process.script):
            self.tried.setdefault((action.pool, action.generation, action.role), []).append(process)

    def _rollback_goes_back(self, action: act.ConcludeRollout) -> None:
        previous = self.world.intent.pools[action.pool].previous
        if action.verdict == "rolled-back" and previous is not None:
            self.rolled_back[action.pool] = previous.generation

    # stop

    def _stop_goes_by_its_list(self, action: act.Signal | act.DriverStep) -> None:
        """Each step at exactly its deadline, the main process alone, and only while it runs."""
        world = self.world
        process = world.observed.find(action.id)
        assert process is not None
        assert not process.ended, f"{action.id} is signalled after its end"
        assert world.host.processes[action.id].exit is None, f"{action.id} is signalled after its end"
        word = action.signal if isinstance(action, act.Signal) else action.word
        assert word == process.policy.stop[action.step].signal
        assert isinstance(action, act.DriverStep) == (word in DRIVER_STEPS)
        if action.step > 0:
            self._comes_when_due(process, action.step, f"step {action.step}")
        self.steps.setdefault(action.id, {})[action.step] = world.now

    def _comes_when_due(self, process: Process, step: int, what: str) -> None:
        """At exactly the deadline of the step before; at once, when that has passed while there was no daemon.

        Sooner when that step was done, later while there is unsafe work and the step may wait for it.
        """
        now = self.world.now
        due = self._due(process, step)
        late = process.adopted and process.since == now and due < now
        assert now == due or late or self._was_not_told(process, step), f"{process.id}: {what} at {now}, not at {due}"
        if not process.adopted:
            self._stop_is_within_bounds(process, what)

    def _was_not_told(self, process: Process, step: int) -> bool:
        """An adopted process whose unsafe work the daemon could not know of: it waited to be told, and not for long."""
        waits = process.adopted and process.policy.stop[step - 1].unsafe_wait_seconds > 0
        passed = self.steps[process.id][step - 1] + process.policy.stop[step - 1].wait_seconds <= self.world.now
        return waits and passed and self.world.now <= process.since + UNTOLD_SECONDS + 1e-9

    def _due(self, process: Process, step: int) -> float:
        sent = self.steps[process.id]
        before = process.policy.stop[step - 1]
        due = sent[step - 1] + before.wait_seconds
        if before.unsafe_wait_seconds:
            limit = sent[min(sent)] + before.unsafe_wait_seconds
            safe_at = self.unsafe.get(process.id, -math.inf) + LEAVING_SECONDS
            due = max(due, min(limit, safe_at))
        done = self.done.get((process.id, step - 1), math.inf)
        return min(due, max(done, sent[step - 1]))

    def _stop_is_within_bounds(self, process: Process, what: str) -> None:
        """A stop takes the sum of its steps, or the longer wait for unsafe work and the steps behind that."""
        steps = process.policy.stop
        longest = sum(step.wait_seconds for step in steps)
        for place, step in enumerate(steps):
            if process.id in self.unsafe and step.unsafe_wait_seconds:
                behind = sum(later.wait_seconds for later in steps[place + 1 :])
                longest = max(longest, step.unsafe_wait_seconds + behind)
        began = min(self.steps[process.id].values())
        assert self.world.now <= began + longest + 1e-6, f"{process.id}: {what} after {self.world.now - began} s"

    def _nothing_is_held_any_more(self, process_id: str) -> None:
        """Nothing is forgotten before it was cared for, unless that cannot be done."""
        process = self.world.observed.find(process_id)
        assert process is not None
        took = process.policy.traits.aftercare and process.pid is not None and process.role == "serve"
        if took and not process.aftercare.last_error:
            assert process_id in self.world.restored, f"{process_id} is forgotten with all that it held"

    def _kill_comes_at_its_deadline(self, action: act.Kill) -> None:
        """Never early: excused are a third signal, a start that did not come to exec, and a tree without a keeper."""
        process = self.world.observed.find(action.id)
        assert process is not None
        sent_before = any(name == "KILL" for _, name in self.world.host.processes[action.id].signals)
        if self.world.desired.kill_now or process.pid is None or (process.adopted and sent_before):
            return
        if process.stop is None:
            first_is_kill = process.policy.stop[0].signal == "KILL"
            assert first_is_kill or (process.ended and process.shim_lost), f"{action.id} is killed without being asked"
            return
        step = process.stop.step + 1
        assert process.ended or step == len(process.policy.stop) - 1, f"{action.id} is killed in the middle of its list"
        self._comes_when_due(process, step, "KILL")

    def _no_deadline_has_passed(self, process: Process) -> None:
        if process.empty or process.stop is None or process.kill_sent:
            return
        assert process.stop.deadline is not None
        due = self._due(process, process.stop.step + 1)
        step = process.policy.stop[process.stop.step]
        if process.adopted and not process.ended and process.tasks is None and step.unsafe_wait_seconds:
            due = max(due, process.since + UNTOLD_SECONDS)
        assert due > self.world.now, f"{process.id}: its deadline has passed"

    def _stop_is_in_reverse_order(self, process_id: str) -> None:
        world = self.world
        pool = world.desired.pools.get(world.pool_of(process_id))
        process = world.observed.find(process_id)
        if pool is None or pool.running or process is None or process.stop is not None:
            return
        if process.stuck or self._timed_out(process):
            return
        for other in world.desired.pools.values():
            if not other.running and self._comes_after(other, pool.name):
                left = [p.id for p in world.living(other.name)]
                assert not left, f"{process_id} is stopped before {left}"

    def _comes_after(self, pool: DesiredPool, name: str) -> bool:
        pools = self.world.desired.pools
        return name in pool.after or any(self._comes_after(pools[n], name) for n in pool.after if n in pools)

    def _timed_out(self, process: Process) -> bool:
        limit = process.since + process.policy.start_timeout_seconds
        return process.state is State.STARTING and limit <= self.world.now

    def _old_generation_is_kept(self, process_id: str, reason: str) -> None:
        """In a rollout nothing of the old generation goes before its slot is served without it."""
        world = self.world
        pool = world.desired.pools.get(world.pool_of(process_id))
        if (
            pool is None
            or reason != f"replaced by g{pool.generation}"
            or not world.host.processes[process_id].serves(world.now)
        ):
            return
        if pool.rollout is None or world.generation_of(process_id) != pool.rollout.from_generation:
            return
        policy = pool.rollout_policy
        if pool.policy.traits.exclusive or policy.max_unavailable or not policy.max_surge or not pool.sizes:
            return
        if world.slot_of(process_id) >= len(pool.sizes):
            return
        slot = world.slot_of(process_id)
        others = [p for p in world.serving(pool.name) if p.id != process_id and world.slot_of(p.id) == slot]
        history = world.observed.pool(pool.name).slots.get((slot, pool.generation))
        done = history is not None and history.ended_well
        proven = any(self._has_served(p, pool) for p in others)
        assert done or proven, f"{process_id} is stopped, and nothing serves instead"

    def _has_served(self, process: FakeProcess, pool: DesiredPool) -> bool:
        """Whether it serves, and one of the new generation for as long as its policy says."""
        new = self.world.generation_of(process.id) == pool.generation
        seconds = pool.rollout_policy.min_ready_seconds if new else 0.0
        since = process.ready_at
        return process.serves(self.world.now) and since is not None and since + seconds <= self.world.now + 1e-9

    # at rest

    def _exclusive_is_alone(self, pool: DesiredPool) -> None:
        if pool.policy.traits.exclusive:
            living = [p.id for p in self.world.living(pool.name)]
            assert len(living) <= 1, f"more than one of an exclusive pool: {living}"

    def _slots_have_one_current(self, pool: DesiredPool) -> None:
        current = Counter(
            (p.slot, p.generation, p.role, 0 if p.policy.traits.scale_in_place else p.workers)
            for p in self.world.observed.pool(pool.name).processes.values()
            if p.live and not p.shim_lost and not p.adopted and not p.resize_refused
        )
        assert all(count == 1 for count in current.values()), f"{pool.name}: two at once in {current}"

    def _serves_wholly(self, name: str, slots: int) -> bool:
        stuck = any(p.stuck for p in self.world.observed.pool(name).processes.values())
        keepers = all(p.shim_alive for p in self.world.serving(name)) and not stuck
        return slots > 0 and keepers and self._serving(name, slots) == slots

    def _serving(self, name: str, slots: int) -> int:
        now = self.world.now
        return len({s for p in self.world.serving(name) if p.serves(now) and (s := self.world.slot_of(p.id)) < slots})

    def _capacity_is_kept(self, name: str, pool: DesiredPool) -> None:
        if name in self.guarded:
            serving = self._serving(name, len(pool.sizes))
            assert serving >= len(pool.sizes), f"{name} rolls to g{pool.generation} and only {serving} serve"

    def _totals_only_grow(self) -> None:
        for name, facts in self.world.observed.pools.items():
            new: Counter[str] = Counter()
            for totals in (facts.exits_total, facts.restarts_total, facts.worker_exits_total):
                new.update(_plain(totals))
            old = self.totals.get(name, Counter())
            assert all(new[kind] >= count for kind, count in old.items()), f"totals of {name} shrank"
            self.totals[name] = new

    def _view_is_total(self) -> None:
        """People can be shown every state, and a wall clock that jumps changes nothing but what they are shown."""
        world = self.world
        listeners: Mapping[str, tuple[str, ...]] = {}
        usages: Mapping[str, Usage] = {}
        sources = Sources(world.intent, world.desired, world.observed, world.now, 1e9, usages, listeners)
        assert {view.name for view in snapshot(DAEMON, sources).pools} == set(world.intent.pools)

    # bookkeeping

    def _ended_by_itself(self, process: Process) -> None:
        if process.role != "serve":
            return
        self.unexpected[process.pool, process.slot, process.generation] = self.world.now
        if not is_bad(self.world.scripts[process.id]) or process.generation != self.guarded.get(process.pool):
            self._disturb(process.pool)

    def _disturb(self, pool: str) -> None:
        self.guarded.pop(pool, None)
        for key in [key for key in self.tried if key[0] == pool]:
            del self.tried[key]

    def _forget(self, pool: str) -> None:
        self._disturb(pool)
        self.totals.pop(pool, None)
        self.unexpected = {key: at for key, at in self.unexpected.items() if key[0] != pool}


def _plain(totals: Mapping[str, int]) -> dict[str, int]:
    return dict(totals)

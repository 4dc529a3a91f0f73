"""What the rest of the program may rely on, of any host.  The rules' numbers are those of runtime/host.py."""

from __future__ import annotations

import pytest

from supervisor_d.core.events import Event, MainExited, ShimReplaced, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from tests.contract.behaviours import World, of

ID = "pool.0@g1.1"
OTHER = "pool.1@g1.2"
FACTS = '{"what":"the core said"}'


def kinds(world: World, process_id: str = ID) -> list[type[Event]]:
    return [type(event) for event in of(process_id, world.events)]


async def run(world: World, behaviour: str, process_id: str = ID, *, orphan_grace_seconds: float = 0.0) -> int:
    launch = world.launch(behaviour, orphan_grace_seconds=orphan_grace_seconds)
    world.host.spawn(process_id, launch, (), FACTS)
    return await world.in_place(process_id)


class TestRule1NothingAtOnce:
    async def test_a_spawn_emits_nothing_before_it_returns(self, world: World) -> None:
        world.host.spawn(ID, world.launch("run"), (), FACTS)
        assert world.events == []

    async def test_a_spawn_that_cannot_be_emits_nothing_before_it_returns(self, world: World) -> None:
        world.host.spawn(ID, world.launch("exec missing file"), (), FACTS)
        assert world.events == []
        await world.wait_for(SpawnFailed, ID)

    async def test_time_does_not_go_back(self, world: World) -> None:
        before = world.host.now()
        await run(world, "run")
        assert world.host.now() >= before


class TestRule2EveryLifeIsToldOnce:
    @pytest.mark.parametrize(
        ("behaviour", "how"),
        [("exit 0", Exit(code=0)), ("exit 3", Exit(code=3)), ("die by SEGV", Exit(signal=11))],
    )
    async def test_a_program_that_ends_by_itself(self, world: World, behaviour: str, how: Exit) -> None:
        await run(world, behaviour)
        assert (await world.wait_for(MainExited, ID)).exit == how
        assert (await world.wait_for(TreeEmptied, ID)).proven
        await world.settle()
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]
        assert not world.alive(ID)

    async def test_a_program_that_runs_has_only_begun(self, world: World) -> None:
        pid = await run(world, "run")
        await world.settle()
        assert kinds(world) == [Spawned]
        assert pid > 1
        assert world.alive(ID)

    async def test_a_missing_executable_says_so_and_nothing_else(self, world: World) -> None:
        world.host.spawn(ID, world.launch("exec missing file"), (), FACTS)
        failed = await world.wait_for(SpawnFailed, ID)
        await world.settle()
        assert failed.reason.startswith("cannot start ")
        assert failed.reason.endswith("No such file or directory")
        assert kinds(world) == [SpawnFailed]

    async def test_a_program_that_somebody_else_kills(self, world: World) -> None:
        await run(world, "run")
        world.crash(ID, "KILL")
        assert (await world.wait_for(MainExited, ID)).exit == Exit(signal=9)
        await world.wait_for(TreeEmptied, ID)
        await world.settle()
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]

    async def test_children_that_outlive_the_main_process_end_too(self, world: World) -> None:
        await run(world, "exit 0 leaving a child")
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]
        assert not world.alive(ID)

    async def test_children_may_live_for_the_orphan_grace(self, world: World) -> None:
        before = world.host.now()
        await run(world, "exit 0 leaving a child", orphan_grace_seconds=0.3)
        await world.wait_for(MainExited, ID)
        assert world.alive(ID)
        await world.wait_for(TreeEmptied, ID)
        assert world.host.now() - before >= 0.3
        assert not world.alive(ID)

    async def test_processes_are_told_apart(self, world: World) -> None:
        await run(world, "run")
        await run(world, "exit 3", OTHER)
        await world.wait_for(TreeEmptied, OTHER)
        assert kinds(world) == [Spawned]
        assert world.alive(ID)


class TestRule3SignalAndKill:
    async def test_a_signal_that_is_obeyed(self, world: World) -> None:
        await run(world, "run")
        world.host.signal(ID, "TERM")
        assert (await world.wait_for(MainExited, ID)).exit == Exit(code=0)

    async def test_a_signal_that_is_ignored(self, world: World) -> None:
        await run(world, "ignore TERM")
        world.host.signal(ID, "TERM")
        await world.settle()
        assert kinds(world) == [Spawned]
        world.host.signal(ID, "QUIT")
        assert (await world.wait_for(MainExited, ID)).exit == Exit(code=0)

    async def test_a_signal_reaches_the_main_process_only(self, world: World) -> None:
        await run(world, "ignore TERM", OTHER)
        await run(world, "run with hidden children", orphan_grace_seconds=60.0)
        world.host.signal(ID, "TERM")
        await world.wait_for(MainExited, ID)
        assert world.alive(ID)
        world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)

    async def test_kill_reaches_the_whole_tree(self, world: World) -> None:
        await run(world, "ignore all with hidden children")
        world.host.kill(ID)
        assert (await world.wait_for(MainExited, ID)).exit == Exit(signal=9)
        assert (await world.wait_for(TreeEmptied, ID)).proven
        assert not world.alive(ID)

    async def test_kill_again_changes_nothing(self, world: World) -> None:
        await run(world, "ignore all with hidden children")
        for _ in range(3):
            world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)
        world.host.kill(ID)
        await world.settle()
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]

    async def test_kill_right_after_spawn_leaves_nothing(self, world: World) -> None:
        world.host.spawn(ID, world.launch("ignore all"), (), FACTS)
        world.host.kill(ID)
        await world.settle()
        told = kinds(world)
        assert told in ([SpawnFailed], [Spawned, MainExited, TreeEmptied])

    async def test_what_has_ended_takes_no_signal(self, world: World) -> None:
        await run(world, "exit 3")
        await world.wait_for(TreeEmptied, ID)
        world.host.signal(ID, "TERM")
        world.host.kill(ID)
        await world.settle()
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]

    async def test_what_was_never_there_takes_no_signal(self, world: World) -> None:
        world.host.signal("nobody.0@g1.9", "TERM")
        world.host.kill("nobody.0@g1.9")
        world.host.forget("nobody.0@g1.9")
        await world.settle()
        assert world.events == []


class TestTheAgentIsTold:
    """`tell`: at most once, in order, and never a wait."""

    async def heard(self, world: World, count: int) -> list[str]:
        for _ in range(100):
            if len(world.told) >= count:
                break
            await world.settle()
        assert {process_id for process_id, _ in world.told} <= {ID}
        return [text for _, text in world.told]

    async def test_it_hears_and_answers_in_order(self, world: World) -> None:
        await run(world, "run with an agent")
        world.host.tell(ID, "one")
        world.host.tell(ID, "two \u20ac")
        assert await self.heard(world, 2) == ["one", "two \u20ac"]

    async def test_the_next_daemon_may_tell_it_too(self, world: World) -> None:
        await run(world, "run with an agent")
        world.lose_daemon()
        world.new_daemon()
        await world.settle()
        world.host.tell(ID, "again")
        assert await self.heard(world, 1) == ["again"]

    async def test_without_an_agent_it_is_lost(self, world: World) -> None:
        await run(world, "run")
        world.host.tell(ID, "nobody hears")
        world.host.tell(OTHER, "of nobody")
        await world.settle()
        assert (world.told, kinds(world)) == ([], [Spawned])

    async def test_after_its_end_it_is_lost(self, world: World) -> None:
        await run(world, "run with an agent")
        world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)
        world.host.tell(ID, "too late")
        await world.settle()
        assert world.told == []

    async def test_with_its_shim_the_way_to_it_is_gone(self, world: World) -> None:
        await run(world, "run with an agent")
        world.lose_shim(ID)
        await world.wait_for(ShimReplaced, ID)
        world.host.tell(ID, "nobody carries it")
        await world.settle()
        assert world.told == []


class TestRule4Forget:
    async def test_a_forgotten_id_is_unknown(self, world: World) -> None:
        await run(world, "exit 3")
        await world.wait_for(TreeEmptied, ID)
        world.host.forget(ID)
        world.lose_daemon()
        assert world.new_daemon() == []

    async def test_a_forgotten_id_may_be_used_again(self, world: World) -> None:
        await run(world, "exit 3")
        await world.wait_for(TreeEmptied, ID)
        world.host.forget(ID)
        world.events.clear()
        await run(world, "run")
        assert kinds(world) == [Spawned]

    async def test_a_failed_spawn_is_forgotten(self, world: World) -> None:
        world.host.spawn(ID, world.launch("exec missing file"), (), FACTS)
        await world.wait_for(SpawnFailed, ID)
        world.host.forget(ID)
        world.lose_daemon()
        assert world.new_daemon() == []

    async def test_a_process_that_lives_is_not_forgotten(self, world: World) -> None:
        await run(world, "run")
        world.host.forget(ID)
        world.host.signal(ID, "TERM")
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [Spawned, MainExited, TreeEmptied]


class TestRule5TheDaemonMayDie:
    async def test_a_process_lives_on_and_is_adopted(self, world: World) -> None:
        pid = await run(world, "run")
        world.lose_daemon()
        await world.settle()
        assert world.alive(ID)
        world.events.clear()
        (adoption,) = world.new_daemon()
        assert (adoption.process_id, adoption.facts, adoption.pid) == (ID, FACTS, pid)
        assert (adoption.exit, adoption.empty) == (None, False)
        world.host.signal(ID, "TERM")
        assert (await world.wait_for(MainExited, ID)).exit == Exit(code=0)
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [MainExited, TreeEmptied]

    async def test_the_last_note_is_given_back(self, world: World) -> None:
        await run(world, "run")
        world.host.note(ID, "first")
        world.host.note(ID, "second")
        world.host.note(OTHER, "of nobody")
        world.lose_daemon()
        (adoption,) = world.new_daemon()
        assert adoption.note == "second"
        world.host.note(ID, "third")
        world.lose_daemon()
        (adoption,) = world.new_daemon()
        assert adoption.note == "third"
        world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)
        world.host.forget(ID)
        world.host.note(ID, "too late")
        world.lose_daemon()
        assert world.new_daemon() == []

    async def test_an_exit_that_no_daemon_saw_is_known(self, world: World) -> None:
        await run(world, "run")
        world.lose_daemon()
        world.crash(ID, "SEGV")
        await world.settle()
        world.events.clear()
        (adoption,) = world.new_daemon()
        assert adoption.exit == Exit(signal=11)
        assert adoption.empty
        await world.settle()
        assert kinds(world) == []

    async def test_an_adopted_tree_is_killed_whole(self, world: World) -> None:
        await run(world, "ignore all with hidden children")
        world.lose_daemon()
        world.new_daemon()
        world.host.kill(ID)
        assert (await world.wait_for(TreeEmptied, ID)).proven
        assert not world.alive(ID)

    async def test_a_spawn_that_the_daemon_did_not_live_to_see(self, world: World) -> None:
        world.host.spawn(ID, world.launch("run"), (), FACTS)
        world.lose_daemon()
        await world.settle()
        world.events.clear()
        (adoption,) = world.new_daemon()
        assert (adoption.process_id, adoption.facts, adoption.pid) == (ID, FACTS, None)
        await world.wait_for(SpawnFailed, ID)
        assert kinds(world) == [SpawnFailed]


class TestTheShimMayDie:
    async def test_it_is_told_once_and_the_program_runs_on(self, world: World) -> None:
        await run(world, "run")
        world.lose_shim(ID)
        await world.wait_for(ShimReplaced, ID)
        await world.settle()
        assert kinds(world) == [Spawned, ShimReplaced]
        assert world.alive(ID)

    async def test_signals_still_reach_the_main_process(self, world: World) -> None:
        await run(world, "run")
        world.lose_shim(ID)
        await world.wait_for(ShimReplaced, ID)
        world.host.signal(ID, "TERM")
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [Spawned, ShimReplaced, MainExited, TreeEmptied]

    async def test_kill_still_leaves_nothing(self, world: World) -> None:
        await run(world, "ignore all with hidden children")
        world.lose_shim(ID)
        await world.wait_for(ShimReplaced, ID)
        world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [Spawned, ShimReplaced, MainExited, TreeEmptied]
        assert not world.alive(ID)

    async def test_shim_and_daemon_both(self, world: World) -> None:
        pid = await run(world, "ignore all with hidden children")
        world.lose_daemon()
        world.lose_shim(ID)
        await world.settle()
        world.events.clear()
        (adoption,) = world.new_daemon()
        assert adoption.pid == pid
        await world.wait_for(ShimReplaced, ID)
        world.host.kill(ID)
        await world.wait_for(TreeEmptied, ID)
        assert kinds(world) == [ShimReplaced, MainExited, TreeEmptied]
        assert not world.alive(ID)

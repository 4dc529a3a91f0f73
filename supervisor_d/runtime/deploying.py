"""Which pools a deploy or a rollback means, and what is wrong with asking for it."""

from __future__ import annotations

from supervisor_d.core.intent import Intent, PoolIntent, come_before
from supervisor_d.core.spec import Traits
from supervisor_d.errors import NotPermittedError, UnknownNameError
from supervisor_d.programs.registry import PROGRAMS


def members_of_deploy(intent: Intent, names: tuple[str, ...]) -> tuple[tuple[str, ...], frozenset[str]]:
    """(the pools of a deploy, the oneshots among them): those named, or else all that run the project's code; and the
    oneshots that they come after, near and far.  In the order of the config.

    Raises UnknownNameError, and NotPermittedError for a pool that is stopped.
    """
    pools = {name: pool for name, pool in intent.pools.items() if not pool.removed}
    for name in names:
        if name not in pools:
            raise UnknownNameError(f"cannot find a pool {name!r}", hint=f"there are: {', '.join(sorted(pools))}")
        if not pools[name].running:
            raise NotPermittedError(f"cannot deploy {name}: it is stopped", hint=f"supervisor-d start {name}")
    chosen = set(names) or {name for name, pool in pools.items() if _traits(pool).deployed and pool.running}
    once = {name for name in come_before(chosen, intent) | chosen if _traits(pools[name]).oneshot}
    once = {name for name in once if pools[name].running}
    return tuple(name for name in pools if name in chosen | once), frozenset(once)


def refuse_rollback(intent: Intent, names: tuple[str, ...], *, everything: bool) -> tuple[str, ...]:
    """The pools that can be rolled back: of `everything` those that can, of named ones each.  A oneshot whose work is
    done is rolled back by its name alone: it would do the old release's work once more.

    Raises NotPermittedError for a named one that cannot, or when there is none.
    """
    able = tuple(name for name in names if not _stuck(intent.pools[name], everything=everything))
    if everything and able:
        return able
    for name in names:
        if why := _stuck(intent.pools[name], everything=everything):
            raise NotPermittedError(
                f"cannot roll back {name}: {why}",
                hint=f"code that changed in place is brought back in place: then `supervisor-d restart {name}`",
            )
    return able


def may_go_one_by_one(pool: PoolIntent) -> bool:
    """Whether its workers can change places one at a time, if memory is short: several, in one process."""
    spec = pool.wanted.spec
    sizes = PROGRAMS[spec.program].sizes(spec, pool.wanted_workers)
    in_place = _traits(pool).scale_in_place and len(sizes) == 1 and sizes[0] > 1
    return in_place and spec.rollout.one_by_one == "auto"


def _stuck(pool: PoolIntent, *, everything: bool) -> str:
    """Why a pool cannot be rolled back; empty when it can."""
    if pool.previous is not None:
        return ""
    if everything and _traits(pool).oneshot:
        return "what a oneshot did is not taken back"
    if pool.former is not None:
        return ""
    return "no other config or release of it has run before"


def _traits(pool: PoolIntent) -> Traits:
    return PROGRAMS[pool.wanted.spec.program].traits

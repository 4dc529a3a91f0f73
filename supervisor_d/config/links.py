"""What pools say of one another: `after`, without unknown names and circles, and addresses that two would bind."""

from __future__ import annotations

import graphlib
from collections import defaultdict
from collections.abc import Iterable, Mapping

from supervisor_d.config.grammar import clash
from supervisor_d.config.site import Site
from supervisor_d.config.suggest import did_you_mean
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.addresses import parse_address

MAX_CIRCLES = 20


def check_after(specs: Mapping[str, PoolSpec], sites: Mapping[str, Site], names: Iterable[str]) -> None:
    """Every name in `after` is a pool (of `names`, the broken ones included), and nothing waits for itself."""
    known = tuple(names)
    for spec in specs.values():
        for index, name in enumerate(spec.after):
            if name == spec.name:
                sites[spec.name].problem("a pool cannot wait for itself", "after", index)
            elif name not in known:
                others = [pool for pool in known if pool != spec.name]
                sites[spec.name].problem(f"there is no pool {name}{did_you_mean(name, others)}", "after", index)
    _check_circles(specs, sites)


def _check_circles(specs: Mapping[str, PoolSpec], sites: Mapping[str, Site]) -> None:
    """Each circle is told once, where its first pool closes it, and then opened to find the next."""
    waits = {name: [other for other in spec.after if other in specs and other != name] for name, spec in specs.items()}
    order = list(specs)
    for _ in range(MAX_CIRCLES):
        try:
            graphlib.TopologicalSorter(waits).prepare()
        except graphlib.CycleError as error:
            # args[1] names each pool before the one that waits for it, the first again at the end.
            circle = error.args[1][:0:-1]
            start = circle.index(min(circle, key=order.index))
            circle = [*circle[start:], *circle[:start]]
            first, second = circle[0], circle[1]
            shown = " -> ".join([*circle, first])
            sites[first].problem(f"a circle, in which no pool could start: {shown}", "after", _index(specs, circle))
            waits[first].remove(second)
        else:
            return


def _index(specs: Mapping[str, PoolSpec], circle: list[str]) -> int:
    return specs[circle[0]].after.index(circle[1])


def check_addresses(specs: Mapping[str, PoolSpec], sites: Mapping[str, Site], metrics_listen: str) -> None:
    """No two sockets of the config want the same address."""
    taken: dict[object, list[tuple[str, str]]] = defaultdict(list)
    if metrics_listen:
        taken[parse_address(metrics_listen).port].append((metrics_listen, "`daemon: metrics: listen:`"))
    for spec in specs.values():
        for index, listener in enumerate(spec.listeners):
            parsed = parse_address(listener.address)
            others = taken[parsed.path or parsed.port]
            owner = next((name for address, name in others if clash(address, listener.address)), "")
            if owner:
                which = "this pool" if owner == f"pool {spec.name}" else owner
                sites[spec.name].problem(f"{which} binds that address already", "bind", index, "address")
            others.append((listener.address, f"pool {spec.name}"))

"""A Snapshot as a table: a line for each pool, and below it its processes and the slots that have none."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from supervisor_d.cli.render import Cell, Column, cpu_time, cut, memory, painted, span, state_cell, table

if TYPE_CHECKING:
    from supervisor_d.core.snapshot import PoolView, ProcessView, SlotView, Snapshot, TasksNow

COLUMNS = (
    Column("POOL"),
    Column("PROGRAM", rank=3),
    Column("STATE"),
    Column("READY", right=True),
    Column("BUSY", rank=5, right=True),
    Column("GEN", rank=5),
    Column("PID", rank=4, right=True),
    Column("UPTIME", rank=1, right=True),
    Column("CPU%", rank=6, right=True),
    Column("CPU", rank=6, right=True),
    Column("RSS", rank=2, right=True),
    Column("DETAIL", elastic=True),
)
_NONE = Cell("")


def status_lines(
    snapshot: Snapshot,
    *,
    pools: Collection[str] = (),
    width: int | None,
    colour: bool,
    shares: Mapping[str, float] | None = None,
) -> list[str]:
    """Everything `status` shows.  `shares` is the CPU use of each process since a former picture, if there is one."""
    rows = [
        row
        for pool in snapshot.pools
        if not pools or pool.name in pools
        for row in _pool_rows(pool, snapshot.at, shares or {})
    ]
    return [*_head(snapshot, width, colour=colour), *table(COLUMNS, rows, width=width, colour=colour)]


def _head(snapshot: Snapshot, width: int | None, *, colour: bool) -> list[str]:
    daemon = snapshot.daemon
    text = f"supervisor-d {daemon.version}, pid {daemon.pid}, up {span(snapshot.at - daemon.started_at)}"
    line = f"{text}, {daemon.config_path}"
    line = line if width is None else cut(line, width)
    if daemon.state != "running":
        line = painted(f"{line}: {daemon.state}", "yellow", on=colour)
    return [line, ""]


def _pool_rows(pool: PoolView, at: float, shares: Mapping[str, float]) -> list[list[Cell]]:
    rows = [_pool_row(pool, shares)]
    rows += [_process_row(process, at, shares) for process in sorted(pool.processes, key=lambda p: (p.slot, p.id))]
    return rows + [_slot_row(pool, slot) for slot in pool.slots]


def _pool_row(pool: PoolView, shares: Mapping[str, float]) -> list[Cell]:
    usages = [process.usage for process in pool.processes if process.usage is not None]
    short = pool.workers_ready < pool.workers_desired
    return [
        Cell(pool.name, "bold"),
        Cell(pool.program),
        state_cell(pool.state),
        Cell(f"{pool.workers_ready}/{pool.workers_desired}", "yellow" if short else ""),
        _busy(pool.processes),
        Cell(f"g{pool.generation}"),
        _NONE,
        _NONE,
        _share([shares[p.id] for p in pool.processes if p.id in shares]),
        Cell(cpu_time(sum(usage.cpu_seconds for usage in usages))) if usages else _NONE,
        Cell(memory(sum(usage.rss_bytes for usage in usages))) if usages else _NONE,
        Cell(_pool_detail(pool)),
    ]


def _busy(processes: Iterable[ProcessView]) -> Cell:
    """How many requests and tasks they have in hand; empty where no agent tells."""
    told = [process.serving.in_flight for process in processes if process.serving is not None]
    told += [process.tasks.active for process in processes if process.tasks is not None]
    return Cell(str(sum(told))) if told else _NONE


def _pool_detail(pool: PoolView) -> str:
    parts = [pool.detail] if pool.detail else []
    if pool.workers_from == "operator":
        parts.append("scaled by an operator")
    if pool.rollout is not None and pool.rollout.verdict == "rolled-back":
        parts.append(f"g{pool.rollout.to_generation} was rolled back: {pool.rollout.reason}")
    parts.extend(pool.listeners)
    return "; ".join(parts)


def _process_row(process: ProcessView, at: float, shares: Mapping[str, float]) -> list[Cell]:
    usage = process.usage
    return [
        Cell(f"  {process.id}"),
        _NONE,
        state_cell(process.state),
        Cell(f"{process.workers_ready}/{process.workers}"),
        _busy((process,)),
        Cell(f"g{process.generation}"),
        Cell(str(process.pid)) if process.pid is not None else _NONE,
        Cell(span(at - process.started_at)),
        _share([shares[process.id]] if process.id in shares else []),
        Cell(cpu_time(usage.cpu_seconds)) if usage is not None else _NONE,
        Cell(memory(usage.rss_bytes)) if usage is not None else _NONE,
        Cell(_process_detail(process), "dim"),
    ]


def _process_detail(process: ProcessView) -> str:
    """Why it is as it is: how it ended, why it stops, else why it was started."""
    why = process.exit or process.stop_reason or process.reason
    if process.tasks is not None and process.tasks.active and not process.exit:
        why = f"{_tasks(process.tasks)}; {why}"
    return f"{why}; adopted" if process.adopted and why else "adopted" if process.adopted else why


def _tasks(tasks: TasksNow) -> str:
    """`2 tasks, the oldest 41 s: shop.tasks.export`."""
    counted = f"{tasks.active} task{'s' if tasks.active != 1 else ''}"
    if tasks.oldest_seconds is None:
        return counted
    return f"{counted}, the oldest {tasks.oldest_seconds:.0f} s: {tasks.oldest_name}"


def _slot_row(pool: PoolView, slot: SlotView) -> list[Cell]:
    if slot.failed:
        state, detail = "failed", slot.failed
    else:
        state = "backoff"
        detail = f"starts again in {slot.backoff_seconds:.1f} s (attempt {slot.attempt}); {slot.last_exit}"
    name, generation = Cell(f"  {pool.name}.{slot.slot}"), Cell(f"g{slot.generation}")
    return [name, _NONE, state_cell(state), _NONE, _NONE, generation, *[_NONE] * 5, Cell(detail)]


def _share(shares: list[float]) -> Cell:
    return Cell(f"{sum(shares) * 100:.0f}") if shares else _NONE


def cpu_shares(before: Snapshot | None, after: Snapshot) -> dict[str, float]:
    """The share of one CPU that each process used between two pictures."""
    if before is None or after.at <= before.at:
        return {}
    past = {p.id: p.usage.cpu_seconds for pool in before.pools for p in pool.processes if p.usage is not None}
    return {
        process.id: max(0.0, process.usage.cpu_seconds - past[process.id]) / (after.at - before.at)
        for pool in after.pools
        for process in pool.processes
        if process.usage is not None and process.id in past
    }

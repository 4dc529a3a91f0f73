"""Grow and shrink of the prefork pool, at once and without touching a busy process.

Celery's own pool_grow only raises a number; the process is forked within five seconds.  Its pool_shrink sends TERM to a
process that has no accepted task, and so loses a task that stands in the pipe already.

To shrink by one, here:

    1  a process without work is chosen, or else one with work
    2  its pipe is taken out of those that work is written to, so it gets nothing new
    3  the pool's own sentinel is written behind the work that stands in the pipe: the process does that work, delivers
       its results, and ends by itself
    4  the pool is told that it has one process fewer, and the prefetch follows

The pair of queues of such a process is never used again (`retired` owns it): a process that ends before it reads the
sentinel, by its own limits, would leave it to its successor.

`maintain_pool`, which Celery runs every five seconds, counts a process on its way out as there.  While there is one, a
process that dies is replaced by `refill`, from the agent's tick.
"""

from __future__ import annotations

from typing import Any

INSTANCE_NEEDS = (
    "_pool",
    "_processes",
    "_queues",
    "_all_inqueues",
    "_busy_workers",
    "_active_writes",
    "_fileno_to_inq",
    "_cache",
    "_state",
    "_putlock",
)
"""What must stand on the pool itself."""

PREFORK_NAMES = ("prefork", "processes")
"""What Celery calls it (celery/concurrency/__init__.py)."""


def prefork(consumer: Any) -> Any:
    """Celery's own prefork pool behind a consumer; None for every other kind, which we know nothing of."""
    found = getattr(getattr(consumer, "pool", None), "_pool", None)
    return found if isinstance(getattr(found, "_pool", None), list) else None


def takes_work(pool: Any, process: Any) -> bool:
    """Whether work is written to a pool process: not before it says that it is up, nor on its way out."""
    open_pipes = getattr(pool, "_all_inqueues", None)
    return open_pipes is None or process.inqW_fd in open_pipes


class Pool:
    """The prefork pool of one consumer.  Raises TypeError and AttributeError where it is none that we know."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._pool: Any = prefork(consumer)
        if self._pool is None:
            raise TypeError(f"{type(consumer.pool).__module__} is not the prefork pool")
        for name in INSTANCE_NEEDS:
            getattr(self._pool, name)
        self.retired: dict[Any, Any] = {}
        """Processes on their way out, with their queues."""

    def grow(self, count: int) -> int:
        """`count` processes more, forked before this returns; how many there are to be."""
        self._refuse_at_the_end()
        self._consumer.pool.grow(count)
        self._consumer._update_prefetch_count(count)
        self.refill()
        return int(self._pool._processes)

    def shrink(self, count: int) -> int:
        """`count` processes fewer, never below one; how many there are to be.

        Raises RuntimeError when too few can go just now: nothing was changed, ask again.
        """
        self._refuse_at_the_end()
        count = min(count, self._pool._processes - 1)
        chosen = self._choose(count)
        if len(chosen) < count:
            raise RuntimeError("pool processes are starting, or work is being written to them: try again")
        for process in chosen:
            self._retire(process)
        if chosen:
            self._consumer._update_prefetch_count(-len(chosen))
        return int(self._pool._processes)

    def refill(self) -> None:
        """Fork what is missing, not counting processes on their way out; forget those that are gone."""
        pool = self._pool
        if pool._state != _run():
            return
        for process in [process for process in self.retired if process not in pool._pool]:
            self._close(process, self.retired.pop(process))
        while len(pool._pool) - len(self.retired) < pool._processes:
            pool.on_grow(0)  # as many pairs of queues as processes
            taken = {process.index for process in pool._pool}
            pool._create_worker_process(next(i for i in range(len(taken) + 1) if i not in taken))

    def staying(self) -> list[Any]:
        """The processes that are not on their way out."""
        return [process for process in self._pool._pool if process not in self.retired]

    def _choose(self, count: int) -> list[Any]:
        """The idle first.  Not one that is written to just now, nor one that has not come up: it would join later."""
        up, writing = self._pool._fileno_to_inq, self._pool._active_writes
        able = [each for each in self.staying() if each.inqW_fd in up and each.inqW_fd not in writing]
        return sorted(able, key=self._burden)[:count]

    def _burden(self, process: Any) -> int:
        return sum(
            1
            for job in tuple(self._pool._cache.values())
            if process in (job._write_to, job._scheduled_for) or process.pid in job.worker_pids()
        )

    def _retire(self, process: Any) -> None:
        pool = self._pool
        queues = pool._find_worker_queues(process)
        process._controlled_termination = True  # its end is nothing to log as an error
        process.inq.put(None)  # raises where the pipe is full: then nothing has changed yet
        pool._all_inqueues.discard(process.inqW_fd)
        pool._busy_workers.discard(process.inqW_fd)
        del pool._queues[queues]
        self.retired[process] = queues
        pool._processes -= 1
        if pool._putlock:
            pool._putlock.shrink()

    def _close(self, process: Any, queues: Any) -> None:
        """As destroy_queues does it: out of every index and out of the event loop first."""
        pool = self._pool
        pool.on_inqueue_close(process.inqW_fd, process)
        for end in [end for queue in queues if queue for end in (queue._reader, queue._writer)]:
            if not end.closed:
                pool.hub_remove(end)
                end.close()

    def _refuse_at_the_end(self) -> None:
        if self._pool._state != _run() or not self._consumer.blueprint or not _runs(self._consumer):
            raise RuntimeError("the worker is stopping")


def _runs(consumer: Any) -> bool:
    from celery import bootsteps

    return bool(consumer.blueprint.state == bootsteps.RUN)


def _run() -> Any:
    from billiard.pool import RUN

    return RUN

"""The figures of every gunicorn master's requests, read when somebody asks for them; totals outlive the masters.

A master that ended is read on for as long as its directory is there: its orphaned workers still finish requests.  The
file is held open, so that what they counted last can be read when the directory is gone with the last of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor_d.core.requests import Reading, Requests, WorkerFacts, serving, traffic
from supervisor_d.core.snapshot import Serving, Traffic
from supervisor_d.runtime.drivers.gunicorn_scoreboard import Board, open_board, read_open_board
from supervisor_d.runtime.drivers.members import Members

ENDED_MAX = 1000


@dataclass(slots=True)
class _Account:
    pool: str
    private_dir: str
    totals: Requests
    ended: bool = False
    board: int | None = None
    """The descriptor of its scoreboard, once there is one."""

    def read(self) -> Board | None:
        """What stands there now; totals never shrink."""
        if self.board is None:
            self.board = open_board(self.private_dir)
        found = read_open_board(self.board) if self.board is not None else None
        if found is not None:
            self.totals = found.totals.at_least(self.totals)
        return found

    def close(self) -> None:
        """Let the scoreboard go."""
        if self.board is not None:
            os.close(self.board)
            self.board = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What is served now, by process id, and by pool with all that was."""

    serving: Mapping[str, Serving]
    traffic: Mapping[str, Traffic]


class Ledger:
    """The accounts of all masters."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._accounts: dict[str, _Account] = {}
        self._former: dict[str, Requests] = {}
        """By pool: the totals of accounts that are closed."""

    def opened(self, process_id: str, pool: str, private_dir: str) -> None:
        """A master with our agent was started."""
        self._accounts[process_id] = _Account(pool, private_dir, Requests())

    def ended(self, process_id: str) -> None:
        """The master is gone; its workers may not be."""
        account = self._accounts.get(process_id)
        if account is not None:
            account.ended = True
            account.read()
            if sum(each.ended for each in self._accounts.values()) > ENDED_MAX:
                self._close(next(name for name, each in self._accounts.items() if each.ended))

    def close(self) -> None:
        """Let every scoreboard go."""
        for account in self._accounts.values():
            account.close()
        self._accounts.clear()

    def figures(self) -> Figures:
        """Read every board."""
        now = time.monotonic()
        readings: dict[str, Reading] = {}
        for process_id, account in tuple(self._accounts.items()):
            gone = account.ended and not os.path.exists(account.private_dir)
            board = account.read()
            if gone:
                self._close(process_id)
            elif board is not None:
                readings[process_id] = self._reading(process_id, account, board)
        pools = self._former.keys() | {reading.pool for reading in readings.values()}
        return Figures(
            {name: serving(reading, now) for name, reading in readings.items() if not self._accounts[name].ended},
            {pool: self._traffic(pool, readings, now) for pool in pools},
        )

    def _traffic(self, pool: str, readings: Mapping[str, Reading], now: float) -> Traffic:
        own = [reading for reading in readings.values() if reading.pool == pool]
        return traffic(own, self._former.get(pool, Requests()), now)

    def _reading(self, process_id: str, account: _Account, board: Board) -> Reading:
        alive = self._members.pids(process_id)
        workers: tuple[WorkerFacts, ...] = tuple(worker for worker in board.workers if worker.pid in alive)
        return Reading(account.pool, workers, account.totals)

    def _close(self, process_id: str) -> None:
        account = self._accounts.pop(process_id)
        account.close()
        self._former[account.pool] = self._former.get(account.pool, Requests()) + account.totals

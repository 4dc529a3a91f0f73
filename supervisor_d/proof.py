"""Can this code take over from the daemon that runs?  `python -I -m supervisor_d.proof` is asked before an upgrade.

It imports every module, as a daemon would sooner or later, and reads with its own eyes what the running daemon has
written down: the accepted config and the operators' decisions, and each process's record.  What only a newer version
can have written is refused here, and not found out after the hand-over.  Where the config file is what a new daemon
would start from, it is read too.

Exit 0 with a line of JSON (runtime/upgrade.py, Proof), or 1 with the reason as the last line of standard error.
Nothing is written, and nothing is started.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from pathlib import Path

import msgspec

import supervisor_d
from supervisor_d.config.loader import load
from supervisor_d.config.whereabouts import whereabouts
from supervisor_d.core.adoption import RecordedFacts
from supervisor_d.errors import InternalError, PrepareError, SupervisorError
from supervisor_d.runtime.known import known_from
from supervisor_d.runtime.records import Record, Records
from supervisor_d.runtime.state import StateStore
from supervisor_d.runtime.upgrade import Proof
from supervisor_d.shim import wire

_NOT_IMPORTED = ("supervisor_d.agents.", "supervisor_d.__main__")
"""The agents are loaded into other people's processes; __main__ would run."""


def main(argv: list[str] | None = None) -> int:
    """Prove it, and tell."""
    parser = argparse.ArgumentParser(prog="supervisor_d.proof")
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--config", required=True)
    options = parser.parse_args(argv)
    try:
        import_everything()
        check_places(options.config, options.runtime_dir, options.state_dir)
        store = StateStore(options.state_dir, options.runtime_dir)
        store.load_intent()
        records = sum(read_record(record) for record in Records(options.runtime_dir))
        if not records and not store.ruled_until_death():  # else the accepted config rules, whatever the file says
            load(options.config, environ=os.environ)
    except SupervisorError as error:
        print(error.message.splitlines()[0], file=sys.stderr)  # noqa: T201
        return 1
    except Exception as error:  # noqa: BLE001  whatever it is, this code must not rule
        print(f"supervisor-d {supervisor_d.__version__}: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    proof = Proof(supervisor_d.__version__, sys.executable, records)
    sys.stdout.write(msgspec.json.encode(proof).decode() + "\n")
    return 0


def import_everything() -> None:
    """Raises whatever a module raises."""
    for module in pkgutil.walk_packages(supervisor_d.__path__, "supervisor_d."):
        if not module.name.startswith(_NOT_IMPORTED):
            importlib.import_module(module.name)


def check_places(config: str, runtime_dir: Path, state_dir: Path) -> None:
    """Raises PrepareError when a daemon of that config would live elsewhere, and find nothing to adopt."""
    found = whereabouts(config, environ=os.environ, euid=os.geteuid())
    for key, named, ruling in (
        ("runtime_dir", found.runtime_dir, runtime_dir),
        ("state_dir", found.state_dir, state_dir),
    ):
        if named != ruling:
            raise PrepareError(f"{config} means {named} as its {key}, but this daemon's is {ruling}")


def read_record(record: Record) -> bool:
    """Whether there is a process in that record.  Raises InternalError when this code cannot read it."""
    try:
        data = (record.path / wire.SPEC).read_bytes()
    except OSError:
        return False  # it goes away, or is being made: both are the running daemon's business
    try:
        _check_version(wire.decode(data).get("version"))
        spec = record.spec()
        msgspec.json.decode(spec["facts"], type=RecordedFacts)
        known_from(record.process_id, spec, record.events())
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError) as error:
        raise InternalError(f"the record of {record.process_id} cannot be read: {error}") from error
    return True


def _check_version(version: object) -> None:
    if version != wire.VERSION:
        raise ValueError(f"it has version {version}, and supervisor-d {supervisor_d.__version__} knows {wire.VERSION}")


if __name__ == "__main__":
    sys.exit(main())

"""What a former daemon left running, as the first facts of this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from supervisor_d.core.adoption import Progress, RecordedFacts, adopted_process, serial_of
from supervisor_d.core.events import Adopted, Event, MainExited, TreeEmptied
from supervisor_d.core.intent import Intent, on_trial
from supervisor_d.core.process import pool_and_generation
from supervisor_d.runtime.linux import Adoption


def adoption_events(adoptions: Iterable[Adoption], intent: Intent, now: float) -> Iterator[Event]:
    """For each process that has a record: its adoption under `intent`, then the end that the record already tells.

    One whose facts are not the core's is passed over: nobody can rule it (runtime/debris.py).
    """
    for adoption in adoptions:
        facts = facts_of(adoption.process_id, adoption.facts)
        if facts is None:
            continue
        tried = on_trial(intent, facts.pool, facts.generation)
        process = adopted_process(facts, adoption.pid, now, on_trial=tried, progress=_progress(adoption.note))
        yield Adopted(process, serial_of(facts.id), facts.epoch)
        if adoption.exit is not None:
            yield MainExited(facts.id, adoption.exit)
            if adoption.empty:
                yield TreeEmptied(facts.id, proven=True, killed=0)


def facts_of(process_id: str, text: str) -> RecordedFacts | None:
    """The core's own words in the record of that process; None when they are none, or another's."""
    try:
        facts = msgspec.json.decode(text, type=RecordedFacts)
    except msgspec.DecodeError:
        return None
    named = (facts.pool, facts.generation) == pool_and_generation(process_id)
    return facts if facts.id == process_id and named else None


def _progress(note: str) -> Progress | None:
    """What a note says; None where there is none, or it cannot be read: then the process is asked."""
    try:
        return msgspec.json.decode(note, type=Progress) if note else None
    except msgspec.DecodeError:
        return None

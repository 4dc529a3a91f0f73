"""What a former daemon left running, as the first facts of this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from supervisor_d.core.adoption import Progress, RecordedFacts, adopted_process, serial_of
from supervisor_d.core.events import Adopted, Event, MainExited, TreeEmptied
from supervisor_d.core.intent import Intent, on_trial
from supervisor_d.runtime.linux import Adoption


def adoption_events(adoptions: Iterable[Adoption], intent: Intent, now: float) -> Iterator[Event]:
    """For each process that has a record: its adoption under `intent`, then the end that the record already tells.

    Raises ValueError for facts that are not ours: the records hold what a daemon of this version wrote, or the
    directory belongs to something else.
    """
    for adoption in adoptions:
        try:
            facts = msgspec.json.decode(adoption.facts, type=RecordedFacts)
        except msgspec.DecodeError as error:
            raise ValueError(f"the record of {adoption.process_id} cannot be read: {error}") from error
        tried = on_trial(intent, facts.pool, facts.generation)
        process = adopted_process(facts, adoption.pid, now, on_trial=tried, progress=_progress(adoption.note))
        yield Adopted(process, serial_of(facts.id), facts.epoch)
        if adoption.exit is not None:
            yield MainExited(facts.id, adoption.exit)
            if adoption.empty:
                yield TreeEmptied(facts.id, proven=True, killed=0)


def _progress(note: str) -> Progress | None:
    """What a note says; None where there is none, or it cannot be read: then the process is asked."""
    try:
        return msgspec.json.decode(note, type=Progress) if note else None
    except msgspec.DecodeError:
        return None

"""Which spec and which generation a process has, by its id and by the intent."""

from __future__ import annotations

import pytest

from supervisor_d.core import intent as intents
from supervisor_d.core.intent import Intent
from supervisor_d.core.process import pool_and_generation, process_id
from tests.sim.pools import make_spec


def test_an_id_tells_pool_and_generation() -> None:
    assert pool_and_generation(process_id("web", 0, 3, 17)) == ("web", 3)
    assert pool_and_generation(process_id("a.b-c", 12, 10, 1)) == ("a.b-c", 10)


@pytest.mark.parametrize("text", ["", "web", "web@g1.1", "web.x@g1.1", ".0@g1.1", "web.0@gx.1", "web.0@g.1"])
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match=r"not the id|invalid literal"):
        pool_and_generation(text)


def test_a_spec_is_known_while_its_generation_may_be_wanted() -> None:
    old, new = make_spec("web", "copies"), make_spec("web", "copies")
    intent = intents.begin(Intent(), {"web": old})
    assert intents.spec_of(intent, "web", 1) is old
    intent = intents.accept(intent, {"web": new}, 0.0, reason="test")
    assert intents.spec_of(intent, "web", 1) is old
    assert intents.spec_of(intent, "web", 2) is new
    assert intents.spec_of(intent, "web", 3) is None
    assert intents.spec_of(intent, "api", 1) is None

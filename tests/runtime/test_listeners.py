"""Sockets are prepared whole or not at all, kept while a pool wants them, and leave nothing behind."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.core.spec import Listener, PoolSpec
from supervisor_d.errors import PrepareError
from supervisor_d.runtime.binding import listens_as
from supervisor_d.runtime.listeners import Listeners
from supervisor_d.runtime.recovery import listening_sockets

UNPRIVILEGED_FROM = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


def pool(name: str, *listeners: str | Listener) -> PoolSpec:
    parsed = tuple(each if isinstance(each, Listener) else Listener(each) for each in listeners)
    return PoolSpec(name=name, program="command", workers=1, keys=None, listeners=parsed)


def specs(*pools: PoolSpec) -> dict[str, PoolSpec]:
    return {spec.name: spec for spec in pools}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert isinstance(port, int)
    return port


def connects(address: str) -> bool:
    if address.startswith("unix:"):
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(address.removeprefix("unix:")) == 0
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    with socket.socket(family) as client:
        return client.connect_ex((host.strip("[]") or "127.0.0.1", int(port))) == 0


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    made = Listeners()
    yield made
    made.close(unlink=True)


def accept(listeners: Listeners, *pools: PoolSpec) -> None:
    listeners.commit(listeners.prepare(specs(*pools)))


def test_a_listening_socket(listeners: Listeners) -> None:
    address = f"127.0.0.1:{free_port()}"
    accept(listeners, pool("web", address))
    (fd,) = listeners.fds("web")
    assert connects(address)
    assert listeners.addresses("web") == (address,)
    assert not os.get_inheritable(fd)
    with socket.socket(fileno=os.dup(fd)) as bound:
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


@pytest.mark.parametrize("address", [":0", "localhost:0", "[::1]:0"])
def test_a_port_that_the_kernel_chooses_is_told(listeners: Listeners, address: str) -> None:
    accept(listeners, pool("web", address, address))
    first, second = listeners.addresses("web")
    assert first != second
    assert connects(first)
    fds = listeners.fds("web")
    accept(listeners, pool("web", address, address))
    assert listeners.fds("web") == fds


def test_a_port_in_use_names_it_and_changes_nothing(listeners: Listeners) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = f"127.0.0.1:{free_port()}"
        with pytest.raises(PrepareError, match=f"cannot listen on {address}: address already in use") as caught:
            listeners.prepare(specs(pool("a", free), pool("web", address)))
        assert "ss -ltnp" in caught.value.hint
        assert not connects(free)
        assert listeners.fds("a") == ()


def test_every_refused_address_is_told_at_once(listeners: Listeners, tmp_path: Path) -> None:
    away = f"unix:{tmp_path}/none/web.sock"
    foreign = "192.0.2.1:8000"
    with pytest.raises(PrepareError) as caught:
        listeners.prepare(specs(pool("a", away), pool("b", foreign)))
    assert f"cannot listen on {away}: no such file or directory" in caught.value.message
    assert f"cannot listen on {foreign}: cannot assign requested address" in caught.value.message


def test_our_own_socket_in_the_way_is_named(listeners: Listeners) -> None:
    port = free_port()
    accept(listeners, pool("web", f"127.0.0.1:{port}"))
    with pytest.raises(PrepareError) as caught:
        listeners.prepare(specs(pool("web", f":{port}")))
    assert f"this daemon itself listens on 127.0.0.1:{port}" in caught.value.hint


def test_two_pools_cannot_have_one_address(listeners: Listeners) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(PrepareError, match="pool a listens there"):
        listeners.prepare(specs(pool("a", address), pool("b", address)))


def test_what_stays_equal_is_kept_with_its_queue(listeners: Listeners) -> None:
    address = f"127.0.0.1:{free_port()}"
    accept(listeners, pool("web", address))
    fds = listeners.fds("web")
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))):
        accept(listeners, pool("shop", Listener(address, backlog=16)), pool("other", "127.0.0.1:0"))
        assert listeners.fds("shop") == fds, "renamed, the same socket"
        assert listeners.fds("web") == ()
        with socket.socket(fileno=os.dup(fds[0])) as bound:
            bound.settimeout(5)
            bound.accept()[0].close()


@pytest.mark.skip_allowed("root, and anybody in many containers, may bind any port")
@pytest.mark.skipif(os.geteuid() == 0 or UNPRIVILEGED_FROM <= 80, reason="we may bind any port")
def test_a_privileged_port_says_the_way_out(listeners: Listeners) -> None:
    with pytest.raises(PrepareError) as caught:
        listeners.prepare(specs(pool("web", "127.0.0.1:80")))
    assert "ports below 1024 need root" in caught.value.hint


def test_an_unknown_host(listeners: Listeners) -> None:
    with pytest.raises(PrepareError, match=r"cannot listen on no-such-host\.invalid:80"):
        listeners.prepare(specs(pool("web", "no-such-host.invalid:80")))


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert listening_sockets(2**22 + 1) == []


def test_an_abandoned_preparation_leaves_nothing(listeners: Listeners, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    prepared = listeners.prepare(specs(pool("web", address, f"unix:{tmp_path}/web.sock")))
    assert connects(address)
    listeners.abandon(prepared)
    assert not connects(address)
    assert list(tmp_path.iterdir()) == []


def test_both_addresses_serve_until_a_rollout_is_settled(listeners: Listeners) -> None:
    old, new = (pool("web", f"127.0.0.1:{free_port()}") for _ in range(2))
    accept(listeners, old)
    former = listeners.fds("web")
    accept(listeners, new)
    assert listeners.fds_of(old) == former
    assert listeners.fds_of(new) == listeners.fds("web") != former
    listeners.settle(new)
    assert not connects(old.listeners[0].address)
    assert connects(new.listeners[0].address)


def test_a_rollback_goes_back_to_the_former_address(listeners: Listeners) -> None:
    old, new = (pool("web", f"127.0.0.1:{free_port()}") for _ in range(2))
    accept(listeners, old)
    accept(listeners, new)
    listeners.settle(old)
    assert connects(old.listeners[0].address)
    assert not connects(new.listeners[0].address)
    assert listeners.addresses("web") == (old.listeners[0].address,)


def test_a_version_that_nobody_prepared_has_its_address_once_it_is_needed(listeners: Listeners) -> None:
    old, new = (pool("web", f"127.0.0.1:{free_port()}") for _ in range(2))
    accept(listeners, old)
    accept(listeners, new)
    listeners.settle(new)
    listeners.want(old)
    assert connects(new.listeners[0].address), "who serves there goes on"
    assert not connects(old.listeners[0].address)
    assert len(listeners.fds_of(old)) == 1
    assert listeners.addresses("web") == listeners.addresses_of(old) == (old.listeners[0].address,)
    assert listeners.addresses_of(new) == (new.listeners[0].address,)
    listeners.settle(old)
    assert not connects(new.listeners[0].address)


def test_a_removed_pools_socket_is_closed_and_unlinked(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    accept(listeners, pool("web", f"unix:{path}"))
    assert connects(f"unix:{path}")
    accept(listeners)
    assert not path.exists()


# ------------------------------------------------------------------------------------------------ unix sockets


def test_mode_is_right_from_the_first_instant(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    before = os.umask(0)
    os.umask(before)
    accept(listeners, pool("web", Listener(f"unix:{path}", mode=0o622)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o622
    after = os.umask(before)
    assert after == before
    accept(listeners, pool("web", Listener(f"unix:{path}", mode=0o600)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@root
@pytest.mark.skip_allowed("only root may give a file away")
def test_owner_and_group(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    accept(listeners, pool("web", Listener(f"unix:{path}", owner="nobody", group="daemon")))
    found = path.stat()
    assert (found.st_uid, found.st_gid) == (pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid)
    accept(listeners, pool("web", Listener(f"unix:{path}", owner="0", group="0")))
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)


@pytest.mark.parametrize("unknown", [{"owner": "no-such-user"}, {"group": "no-such-group"}])
def test_an_unknown_owner_leaves_no_file(listeners: Listeners, tmp_path: Path, unknown: Any) -> None:
    with pytest.raises(PrepareError, match="there is no"):
        listeners.prepare(specs(pool("web", Listener(f"unix:{tmp_path}/web.sock", **unknown))))
    assert list(tmp_path.iterdir()) == []
    accept(listeners, pool("web", f"unix:{tmp_path}/web.sock"))
    with pytest.raises(PrepareError, match="there is no"):
        listeners.prepare(specs(pool("web", Listener(f"unix:{tmp_path}/web.sock", **unknown))))


def test_a_stale_socket_is_replaced(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    accept(listeners, pool("web", f"unix:{path}"))
    assert connects(f"unix:{path}")


def test_a_socket_that_somebody_serves_is_left_alone(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(PrepareError, match="another program listens there"):
            listeners.prepare(specs(pool("web", f"unix:{path}")))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_name_that_is_no_socket_is_left_alone(listeners: Listeners, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "web.sock"
    if kind == "file":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PrepareError, match="no socket has that name"):
        listeners.prepare(specs(pool("web", f"unix:{path}")))
    assert path.is_symlink() or path.exists()


def test_a_file_that_is_not_ours_any_more_is_not_unlinked(listeners: Listeners, tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    accept(listeners, pool("web", f"unix:{path}"))
    path.unlink()
    path.write_text("precious")
    accept(listeners)
    assert path.read_text() == "precious"


# ------------------------------------------------------------------------------------------------ a former daemon's


def test_sockets_of_a_former_daemon_are_taken_over(tmp_path: Path) -> None:
    spec = pool("web", "127.0.0.1:0", f"unix:{tmp_path}/web.sock")
    former = Listeners()
    accept(former, spec)
    addresses = former.addresses("web")
    kept = [os.dup(fd) for fd in former.fds("web")]
    former.close(unlink=False)
    listeners = Listeners()
    listeners.offer(spec, reversed(kept))
    accept(listeners, spec)
    assert listeners.addresses("web") == addresses
    assert listeners.fds("web") == tuple(kept)
    assert all(connects(address) for address in addresses)
    listeners.close(unlink=True)
    assert list(tmp_path.iterdir()) == []


def test_sockets_come_back_from_a_process_that_holds_them(tmp_path: Path) -> None:
    spec = pool("web", "127.0.0.1:0", "127.0.0.1:0", f"unix:{tmp_path}/web.sock")
    former = Listeners()
    accept(former, spec)
    addresses = former.addresses("web")
    holder = subprocess.Popen(["sleep", "60"], pass_fds=former.fds("web"))
    former.close(unlink=False)
    try:
        listeners = Listeners()
        listeners.offer(spec, listening_sockets(holder.pid))
        accept(listeners, spec)
        assert listeners.addresses("web") == addresses
    finally:
        holder.kill()
        holder.wait()
    assert all(connects(address) for address in addresses)
    listeners.close(unlink=True)
    assert listening_sockets(holder.pid) == []


def test_a_socket_goes_to_the_listener_of_its_very_address_first() -> None:
    """A port of 0, and a name, could be meant as well: those come last, wherever they stand."""
    web = pool("web", "127.0.0.2:0")
    former = Listeners()
    accept(former, web)
    kept = os.dup(former.fds("web")[0])
    port = former.addresses("web")[0].rpartition(":")[2]
    former.close(unlink=False)
    web, api, named = pool("web", f"127.0.0.2:{port}"), pool("api", "127.0.0.2:0"), pool("named", f"localhost:{port}")
    both = pool("both", "127.0.0.2:0", f"127.0.0.2:{port}")
    for offered, taker, place in (((api, named, web), "web", 0), ((api, both), "both", 1), ((api,), "api", 0)):
        listeners = Listeners()
        assert listeners.take(offered, os.dup(kept))
        listeners.revive(specs(*offered), {})
        assert os.fstat(listeners.fds(taker)[place]).st_ino == os.fstat(kept).st_ino
        listeners.close(unlink=False)
    os.close(kept)


def test_offered_sockets_that_nobody_wants_are_closed(tmp_path: Path) -> None:
    spec = pool("web", f"unix:{tmp_path}/web.sock")
    former = Listeners()
    accept(former, spec)
    kept = os.dup(former.fds("web")[0])
    former.close(unlink=False)
    listeners = Listeners()
    listeners.offer(spec, [kept])
    accept(listeners)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kept)


def test_only_what_really_listens_there_is_adopted(listeners: Listeners) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    elsewhere = socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for fd, address in (
        (deaf.detach(), "127.0.0.1:0"),
        (elsewhere.detach(), "127.0.0.1:1"),
        (datagrams.detach(), "127.0.0.1:0"),
    ):
        assert not listens_as(fd, Listener(address))
        listeners.offer(pool("web", address), [fd])
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert not listens_as(read_end, Listener("127.0.0.1:0"))
    os.close(read_end)
    assert not listens_as(read_end, Listener("127.0.0.1:0"))

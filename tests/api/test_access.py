from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor_d.api.access import AccessRules, Peer, peer_of, resolve_rules, user_name
from supervisor_d.api.client import Client
from supervisor_d.api.control_socket import bind_control_socket
from supervisor_d.api.routes import ROUTES
from supervisor_d.api.service import Level
from supervisor_d.api.wire import OperateRequest
from supervisor_d.errors import AlreadyRunningError, NotPermittedError, PrepareError, SupervisorError
from tests.support.fake_service import served

ALICE, BOB, CAROL, GROUP = 61001, 61002, 61003, 61900
RULES = AccessRules(daemon_uid=os.geteuid(), operators=frozenset({ALICE}), readers=frozenset({BOB}), group=GROUP)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True)
class Names:
    group: str = ""
    operators: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("peer", "level"),
    [
        (Peer(1, 0, 0, frozenset()), Level.ADMIN),
        (Peer(1, 500, 500, frozenset()), Level.ADMIN),
        (Peer(1, ALICE, 1, frozenset()), Level.OPERATE),
        (Peer(1, BOB, 1, frozenset()), Level.READ),
        (Peer(1, BOB, GROUP, frozenset({GROUP})), Level.READ),
        (Peer(1, CAROL, GROUP, frozenset()), Level.OPERATE),
        (Peer(1, CAROL, 1, frozenset({5, GROUP})), Level.OPERATE),
        (Peer(1, CAROL, 1, frozenset({5})), Level.DENIED),
    ],
)
def test_the_first_rule_that_fits_decides(peer: Peer, level: Level) -> None:
    rules = AccessRules(500, frozenset({ALICE}), frozenset({BOB}), GROUP)
    assert rules.level(peer) is level
    assert AccessRules(500).level(Peer(1, CAROL, 0, frozenset({0}))) is Level.DENIED


def test_names_become_numbers() -> None:
    user, group = pwd.getpwall()[1], grp.getgrall()[1]
    rules = resolve_rules(Names(group.gr_name, (user.pw_name,), ()), daemon_uid=7)
    assert rules == AccessRules(7, frozenset({user.pw_uid}), frozenset(), group.gr_gid)
    assert resolve_rules(Names()).daemon_uid == os.geteuid()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (Names(operators=("no-such-user",)), "no-such-user"),
        (Names(readers=("no-such-user",)), "control.readers"),
        (Names(group="no-such-group"), "no such group"),
        (Names(operators=("root",), readers=("root",)), "both"),
    ],
)
def test_names_that_cannot_be_had_are_refused(names: Names, told: str) -> None:
    with pytest.raises(PrepareError, match=told):
        resolve_rules(names)


def test_the_kernel_says_who_calls() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.uid, peer.gid, peer.pid) == (os.getuid(), os.getgid(), os.getpid())
    assert set(os.getgroups()) <= peer.groups | {peer.gid}


def test_a_user_without_a_name_has_a_number() -> None:
    assert user_name(0) == "root"
    assert user_name(61234) == "uid 61234"


def test_the_socket_is_0660_in_a_directory_of_0750_and_never_abstract(tmp_path: Path) -> None:
    path = tmp_path / "control" / "control.sock"
    with bind_control_socket(path, AccessRules(os.geteuid())):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        assert f" @{path}" not in Path("/proc/net/unix").read_text()
        assert f" {path}" in Path("/proc/net/unix").read_text()


def test_the_umask_is_given_back(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        bind_control_socket(tmp_path / "control" / "control.sock", AccessRules(os.geteuid())).close()
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control" / "control.sock"
    rules = AccessRules(os.geteuid())
    bind_control_socket(path, rules).close()
    with bind_control_socket(path, rules), pytest.raises(AlreadyRunningError, match="another daemon answers"):
        bind_control_socket(path, rules)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_whatever_else_lies_there_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "control" / "control.sock"
    path.parent.mkdir()
    make(path)
    with pytest.raises(PrepareError, match="something else"):
        bind_control_socket(path, AccessRules(os.geteuid()))
    assert os.path.lexists(path)


def test_a_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "control").symlink_to(tmp_path / "real")
    with pytest.raises(PrepareError, match="not a directory of the daemon's user"):
        bind_control_socket(tmp_path / "control" / "control.sock", AccessRules(os.geteuid()))


def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    with served(deep) as server:
        assert len(str(server.path)) > 108
        assert server.client.get("/v1/status").startswith(b"{")


def as_user(uid: int, gid: int, groups: list[int], act: Callable[[], None]) -> str:
    """What `act` raises when another user does it: its class's name and text; `fine` when nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            act()
            told = "fine"
        except SupervisorError as error:
            told = f"{type(error).__name__} {error.exit_code} {error.message}"
        except BaseException as error:  # noqa: BLE001  a forked test must never return into pytest
            told = f"unexpected {error!r}"
        os.write(write, told.encode())
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


@needs_root
@pytest.mark.root
def test_levels_hold_for_real_users(open_path: Path) -> None:
    with served(open_path, RULES) as server:
        client = Client(str(server.path))

        def look() -> None:
            client.get("/v1/status")

        def stop() -> None:
            client.post("/v1/stop", OperateRequest(("web",)))

        def shut_down() -> None:
            client.post("/v1/shutdown", OperateRequest())

        assert as_user(ALICE, ALICE, [], look) == "fine"
        assert as_user(ALICE, ALICE, [], stop) == "fine"
        assert as_user(ALICE, ALICE, [], shut_down).startswith("RefusedError 77 cannot shutdown: uid 61001 has")
        assert as_user(BOB, BOB, [], look) == "fine"
        assert as_user(BOB, BOB, [GROUP], stop).startswith("RefusedError 77 cannot stop")
        assert as_user(CAROL, CAROL, [GROUP], stop) == "fine"
        assert as_user(CAROL, GROUP, [], look) == "fine"
        denied = as_user(CAROL, CAROL, [], look)
        assert denied.startswith("NotPermittedError 77 cannot reach the daemon")
        told = [(name, caller) for name, caller, _ in server.service.asked]
    assert [name for name, _ in told] == ["stop", "stop"]
    assert told[0][1].startswith("uid 61001 (uid 61001, pid ")
    assert [caller.uid for caller in server.service.callers] == [ALICE, CAROL]


@needs_root
@pytest.mark.root
def test_who_gets_as_far_as_a_connection_is_still_denied(open_path: Path) -> None:
    """Should the file's rights ever be too wide, the peer's credentials decide."""
    with served(open_path, AccessRules(0)) as server:
        server.path.parent.chmod(0o755)
        server.path.chmod(0o666)
        client = Client(str(server.path))
        for route in ROUTES:

            def ask(method: str = route.method, path: str = route.path) -> None:
                with client.begin(method, path) as exchange:
                    exchange.body(5)

            told = as_user(CAROL, CAROL, [], ask)
            assert told.startswith("RefusedError 77 "), route
        assert server.service.asked == []


def test_a_socket_that_may_not_be_opened_is_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(NotPermittedError) as caught:
        Client("/nowhere").get("/v1/status")
    assert caught.value.exit_code == 77

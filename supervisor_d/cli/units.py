"""Unit files for systemd, as text: what `install-unit` prints, and what lies in systemd/ for the usual paths.

Two profiles.  In the first the daemon is root and each pool drops to its own `user:`; processes live in a scope beside
the service (runtime/scopes.py), so KillMode=mixed ends the daemon alone.  In the second daemon and pools are one
plain user, who may make no scope: KillMode=process keeps processes over a death of the daemon, and ExecStopPost
(supervisor_d/sweep.py) ends what a stop has left.  docs/systemd.md tells why each line is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

STATE_ROOT = "/var/lib"
RUNTIME_ROOT = "/run"
LOG_ROOT = "/var/log"
PLAIN_ENVIRON = {"XDG_RUNTIME_DIR": RUNTIME_ROOT, "XDG_STATE_HOME": STATE_ROOT}
"""So that a plain user's daemon has its directories where root's has them: no session, no home is needed."""
_SWEEP = """/bin/sh -c 'case $$SERVICE_RESULT in success|timeout) exec "$$@";; esac' sh"""
"""A shell, since this is run after every death of the daemon, and before its restart: milliseconds, not a Python.  For
root with `+`, which makes no sandbox for it: that takes longer than the shell.  A plain user's must not become root.
"""
_IS_STOPPED = """+/bin/sh -c 'test "$$(systemctl show --value -pActiveState -pJob "$$0" | tr -d "0\\n")" = inactive'"""
"""Not active, and no job that would make it so.  Asked as root: there may be no message bus for a plain user."""
_HOMES = ("/home/", "/root/", "/run/user/")


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """What a unit is made for; all paths are absolute."""

    python: str
    config: str
    runtime_dir: str
    state_dir: str
    log_dir: str
    user: str = ""
    """Empty: the first profile."""
    group: str = ""
    writable: tuple[str, ...] = ()
    """Directories that pools write to, besides the daemon's own."""
    read: tuple[str, ...] = ()
    """Directories that pools need to see: those below a home decide whether homes are hidden."""


def service(facts: UnitFacts) -> str:
    """The service unit."""
    ours = f"{_word(facts.python)} -I -m supervisor_d"
    config = f"--config {_word(facts.config)}"
    sections = [
        "# Made by `supervisor-d install-unit`; docs/systemd.md explains it. Change it by drop-ins: systemctl edit.",
        "[Unit]",
        "Description=supervisor-d, pools of processes",
        "Wants=network-online.target",
        "After=network-online.target",
        "# However often the daemon dies, its processes live and it is started again.",
        "StartLimitIntervalSec=0",
        *_swept(facts),
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={ours} run {config} --no-logs",
        "# Comes back when the reload is over; its exit code is the reload's.",
        f"ExecReload={ours} reload {config}",
        *_whose(facts),
        f"ExecStopPost={'' if facts.user else '+'}{_SWEEP} {_ours_sweep(facts)}",
        "Restart=always",
        "RestartSec=50ms",
        "# 78: the config is wrong; 75: another daemon runs. Trying again would not help.",
        "RestartPreventExitStatus=78 75",
        "# Also of a reload, with its rollouts.",
        "TimeoutStartSec=10min",
        "# The daemon asks for more as long as it drains.",
        "TimeoutStopSec=30s",
        "WatchdogSec=10s",
        "Delegate=yes",
        "FileDescriptorStoreMax=512",
        "TasksMax=infinity",
        "LimitNOFILE=65536",
        "OOMPolicy=continue",
        *(["OOMScoreAdjust=-500"] if not facts.user else []),
        "UMask=0077",
        *_directories(facts),
        "",
        "# Hardening. Every worker inherits it.",
        *_hardening(facts),
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(sections) + "\n"


def sweeper(facts: UnitFacts, name: str) -> str:
    """The unit that ends what is left when the service `name` was stopped while its daemon was dead."""
    lines = [
        f"# Made by `supervisor-d install-unit`, for {name}.service, which starts it when it has stopped.",
        "[Unit]",
        f"Description=End of what a stop of {name}.service has left",
        "RefuseManualStart=yes",
        "",
        "[Service]",
        "Type=oneshot",
        "# A service that is to be restarted has stopped, too: its processes are the next daemon's.",
        f"ExecCondition={_IS_STOPPED} {name}.service",
        f"ExecStart={_ours_sweep(facts)} {name}.service",
        *_account(facts),
        "UMask=0077",
        "",
        "# Hardening.",
        *_hardening(facts),
    ]
    return "\n".join(lines) + "\n"


def socket(addresses: Sequence[str]) -> str:
    """The socket unit: systemd binds, before the daemon is started and with rights that it needs not have."""
    lines = [
        "# Made by `supervisor-d install-unit --with-socket`: the addresses under `bind:` in the config.",
        "# systemd binds them, holds them over a stop of the service, and starts it at the first connection.",
        "[Unit]",
        "Description=Listening sockets of supervisor-d",
        "",
        "[Socket]",
        *(f"ListenStream={_percent(address)}" for address in addresses),
        "Backlog=2048",
        "# However often it has to start the service, it goes on listening.",
        "TriggerLimitIntervalSec=0",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]
    return "\n".join(lines) + "\n"


def sysusers(facts: UnitFacts) -> str:
    """The account of the second profile, for sysusers.d(5)."""
    return f'u {facts.user} - "supervisor-d and its workers" {facts.state_dir}\n'


def _whose(facts: UnitFacts) -> list[str]:
    if not facts.user:
        return [
            "# Processes live in a scope of their own; what dies here is the daemon alone.",
            "Environment=SUPERVISOR_D_UNIT=%n",
            "KillMode=mixed",
        ]
    return [
        *_account(facts),
        "Environment=" + " ".join(f"{name}={value}" for name, value in PLAIN_ENVIRON.items()),
        "# The daemon's death leaves its processes alone; what a stop leaves is ended by the sweep.",
        "KillMode=process",
    ]


def _account(facts: UnitFacts) -> list[str]:
    return [f"User={facts.user}", f"Group={facts.group or facts.user}"]


def _swept(facts: UnitFacts) -> list[str]:
    if not facts.user:
        return []
    return [
        "# Stopped between two restarts of the daemon, it runs no ExecStopPost= of its own.",
        "OnSuccess=%N-sweep.service",
    ]


def _ours_sweep(facts: UnitFacts) -> str:
    return f"{_word(facts.python)} -I -m supervisor_d.sweep"


def _directories(facts: UnitFacts) -> list[str]:
    lines: list[str] = []
    others: list[str] = []
    kinds = (
        (facts.runtime_dir, RUNTIME_ROOT, "Runtime", "0711"),
        (facts.state_dir, STATE_ROOT, "State", "0700"),
        (facts.log_dir, LOG_ROOT, "Logs", "0750"),
    )
    for path, root, kind, mode in kinds:
        if path.startswith(f"{root}/"):
            lines += [f"{kind}Directory={_word(path[len(root) + 1 :])}", f"{kind}DirectoryMode={mode}"]
        elif not path.startswith(f"{facts.state_dir}/"):
            others.append(path)
    if facts.runtime_dir.startswith(f"{RUNTIME_ROOT}/"):
        lines.append("RuntimeDirectoryPreserve=restart")
    return [*lines, *(f"ReadWritePaths={_word('-' + path)}" for path in (*others, *facts.writable))]


def _hardening(facts: UnitFacts) -> list[str]:
    homes = any(f"{path}/".startswith(_HOMES) for path in (facts.python, facts.config, *facts.read, *facts.writable))
    capabilities = "" if facts.user else "CAP_SETUID CAP_SETGID CAP_KILL CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER"
    return [
        f"CapabilityBoundingSet={capabilities}",
        *(["AmbientCapabilities="] if facts.user else []),
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if homes else 'yes'}",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "PrivateMounts=yes",
        "DevicePolicy=closed",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "KeyringMode=private",
        "RemoveIPC=yes" if facts.user else "RemoveIPC=no",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SystemCallArchitectures=native",
        # pidfd_getfd takes sockets back from a process whose shim is dead; root's pools are other users', and it would
        # take CAP_SYS_PTRACE as well: there the fd store and the shims must do.
        f"SystemCallFilter=@system-service{' pidfd_getfd' if facts.user else ''}",
        f"SystemCallFilter=~@obsolete{' @privileged' if facts.user else ''}",
        *(["SystemCallFilter=@chown"] if facts.user else []),  # to one's own groups
        "SystemCallErrorNumber=EPERM",
    ]


def _word(text: str) -> str:
    """One word of a unit's line: `%` begins a specifier, blanks and quotes must not end it (systemd.syntax(7))."""
    text = _percent(text)
    if any(character in text for character in " \t\"'\\"):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _percent(text: str) -> str:
    return text.replace("%", "%%")

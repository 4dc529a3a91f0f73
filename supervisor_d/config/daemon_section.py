"""`daemon:` as the daemon needs it: directories by default, users and groups that exist."""

from __future__ import annotations

from supervisor_d.config.directories import default_directories
from supervisor_d.config.keys import ControlKeys, DaemonKeys
from supervisor_d.config.machine import Machine
from supervisor_d.config.nodes import Mapping, Place, Scalar, Spot
from supervisor_d.config.problems import Problems
from supervisor_d.config.site import Site
from supervisor_d.core.config_spec import ControlSpec, DaemonSpec


def root_is_allowed(section: Spot | None) -> bool:
    """What `allow_root` says, also in a section that is wrong elsewhere: no pool is to be blamed for that."""
    found = section.step("allow_root") if section is not None else None
    return found is not None and isinstance(found.node, Scalar) and found.node.value is True


def daemon_spec(keys: DaemonKeys, section: Spot | None, machine: Machine, problems: Problems) -> DaemonSpec:
    """The daemon's settings, every directory absolute."""
    nowhere = Mapping(Place(""))
    site = Site(section or Spot(nowhere.place, nowhere, ("daemon",)), problems)
    default = default_directories(machine.environ, machine.euid)
    state_dir = site.path(keys.state_dir, "state_dir") if keys.state_dir else default.state_dir
    log_dir = default.log_dir if machine.is_root else state_dir / "log"
    return DaemonSpec(
        runtime_dir=str(site.path(keys.runtime_dir, "runtime_dir") if keys.runtime_dir else default.runtime_dir),
        state_dir=str(state_dir),
        log_dir=str(site.path(keys.log_dir, "log_dir") if keys.log_dir else log_dir),
        starts_at_once=keys.starts_at_once,
        allow_root=keys.allow_root,
        control=_control(keys.control or ControlKeys(), site, machine),
        metrics_listen=keys.metrics.listen if keys.metrics else "",
    )


def _control(keys: ControlKeys, site: Site, machine: Machine) -> ControlSpec:
    if keys.group is not None:
        with site.at("control", "group"):
            machine.check_group(keys.group)
    for key in ("operators", "readers"):
        for index, user in enumerate(getattr(keys, key)):
            with site.at("control", key, index):
                machine.check_user(user)
    return ControlSpec(keys.group or "", keys.operators, keys.readers)

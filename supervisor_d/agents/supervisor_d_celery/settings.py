"""Broker settings without which a worker does not survive its broker, where the application left them unset.

Redis only (other transports would take these options for something else):

    socket_timeout 10, socket_connect_timeout 5, socket_keepalive, health_check_interval 5
        unset, a half-open connection blocks the worker for ever; set, it consumes again within 20 seconds
    unacked_restore_throttle 1
        with 10, kombu's default, messages of a dead worker wait for up to 100 seconds after their visibility timeout

Any broker:

    broker_connection_max_retries None   the default ends the worker after 100 attempts
    broker_connection_retry_on_startup   a broker that comes later than the worker is waited for

The visibility timeout is left alone: how long a task may take is the application's to say.
"""

from __future__ import annotations

from typing import Any

TRANSPORT_OPTIONS = {
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "unacked_restore_throttle": 1,
}
CONNECTION = {"broker_connection_max_retries": None, "broker_connection_retry_on_startup": True}


def fill(app: Any) -> dict[str, Any]:
    """Set what is unset, before the worker connects; what was set."""
    conf = app.conf.finalize()
    # As Celery's own value_set_for (5.7) looks: `without_defaults` knows no namespace, such as Django's CELERY_.
    chosen = type(conf)({}, conf.maps[:-1], conf._keys, conf.prefix)
    filled: dict[str, Any] = {name: value for name, value in CONNECTION.items() if name not in chosen}
    for name, value in filled.items():
        setattr(app.conf, name, value)
    if app.connection_for_read().transport.driver_type == "redis":
        options = dict(app.conf.broker_transport_options or {})
        missing = {name: value for name, value in TRANSPORT_OPTIONS.items() if name not in options}
        app.conf.broker_transport_options = {**options, **missing}
        filled.update(missing)
    return filled

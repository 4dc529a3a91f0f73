"""Celery beat as supervisor-d runs it: `python -m supervisor_d_celery_beat -A app beat ...`.

`celery beat` has no -I, so our agent is the command itself: it connects a signal and runs celery.
"""

import sys

import supervisor_d_channel as channel


def _ready(**_: object) -> None:
    channel.tell(ready=True)


def run() -> None:
    """Be `celery`, with our ear at beat's door."""
    from celery.__main__ import main
    from celery.signals import beat_init

    beat_init.connect(_ready, weak=False, dispatch_uid="supervisor_d.ready")
    sys.argv[0] = "celery"
    main()


if __name__ == "__main__":
    run()

"""What supervisor-d loads into Celery's main process: one module for each idea, and `guest` that joins them.

    wire        what is said, in both directions, and the environment it comes from: the protocol
    features    what each feature needs of Celery, kombu and billiard, and which are on
    heartbeat   the file that the consumer's loop writes once a second
    tally       running totals of tasks, and which run just now
    intake      drain, resume, canary: whether messages are taken
    ledger      the file of delivered messages, for whoever restores them after our death
    restore     that restoring: `python -m supervisor_d_celery_agent --restore DIR`
    lending     the connection on which messages come, held by somebody who survives us
    popped      what the broker said on it that we did not live to read, for `restore`
    repair      what becomes of delivered messages when the broker's connection is lost
    late_answers  a message that arrives after its connection was given up
    pool        grow and shrink without touching a busy process
    reap        the end of a pool process, noticed at once
    settings    broker settings that the application left unset
    guest       the bootstep in the consumer, and the answers to what the daemon asks

Nothing here may raise into the application, block it, or depend on anything but Celery; every Python that Celery 5.6
and 5.7 run on will do (3.9 and later), so no syntax newer than that.
"""

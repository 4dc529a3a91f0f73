"""supervisor-d: a process supervision daemon for Django shops."""

__version__ = "0.1.0"

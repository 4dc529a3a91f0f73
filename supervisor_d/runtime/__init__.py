"""Where decisions become effects: the loop, the host, listeners, probes, drivers and state."""

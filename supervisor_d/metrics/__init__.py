"""Prometheus metrics as a view of the snapshot."""

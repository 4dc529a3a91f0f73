"""What is loaded into the users' own processes; this directory, not this package, stands on their PYTHONPATH."""

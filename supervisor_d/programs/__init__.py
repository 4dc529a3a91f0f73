"""What supervisor-d knows of each kind of program: pure functions from a pool's spec to a launch."""

"""The I/O that a program needs beyond signals: control sockets, agents, brokers."""

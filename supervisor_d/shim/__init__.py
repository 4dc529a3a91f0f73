"""Zygote and shim: the parent of every supervised tree.  Standard library only, imports nothing else of ours.

wire.py      what daemon and shim say to each other; what stands in a process's record
zygote.py    the process that forks shims, started with `python -I -S`
shim.py      theory of operation, and the shim itself: one process's life from gate to empty tree
keeper.py    the shim in adopt mode, in the place of one that died
store.py     keeps listening sockets, where there is no systemd to keep them
loop.py      epoll and deadlines
links.py     the connections of daemons
child.py     what happens between fork and exec
tree.py      kill everything below, until the kernel says that nothing is left
pump.py      FIFO to log file, without the bytes ever entering the shim
logfile.py   lanes, rotation and the time index of a slot's log
crash.py     where a test lets a shim die
told.py      datagrams of the program (notify, agent) on their way to the daemon
kernel.py    the few system calls that Python lacks
"""

"""Reading the logs that shims write: which files belong to a slot, what stands in them, and what is being added.

line.py      one line, and how it is made fit for a terminal
files.py     names: lanes, rotated segments, the time index
history.py   the last lines, or those since a time, merged over slots
tails.py     one lane that is followed through its rotations
follower.py  many lanes at once, woken by inotify
inotify.py   the three system calls
"""

"""Zygote and shim: the parent of every supervised tree.  Standard library only, imports nothing else of ours."""

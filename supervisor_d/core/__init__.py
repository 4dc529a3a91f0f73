"""The pure core: decides and never acts.  No clock, I/O, asyncio, logging or randomness below this package."""

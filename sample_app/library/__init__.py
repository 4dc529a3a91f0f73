"""Authors, their books, and what happens when one gains or loses the other."""

"""`batchfox schedule`: jobs that run at the times in their `[schedule]`, each in a process of its own.

`core/nights.py` says when; here are the clock, the processes and the file that remembers.
"""

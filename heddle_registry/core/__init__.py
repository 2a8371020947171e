"""The pure kernel: states, decisions and verdicts as functions of values.

Nothing in this package reads a clock, a process table, a file or a random source; facts arrive
as arguments and effects leave as values. ``tests/core/test_purity.py`` enforces it.
"""

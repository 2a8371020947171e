"""Wiring harnesses and git to the registry, and taking the wires out again without a trace."""

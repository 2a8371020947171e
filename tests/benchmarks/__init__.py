"""Speed as ratios within one run: ``python -m tests.benchmarks`` writes docs/performance.md."""

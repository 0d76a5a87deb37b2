"""Speeds as ratios, side by side in one run: `python -m benchmarks` prints the table. See README.md."""

"""A training run: its options, its steps, its checkpoints and its records."""

"""One run: its settings, its step, its checkpoints, what it writes down."""

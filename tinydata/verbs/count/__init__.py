"""corpus -> counts."""

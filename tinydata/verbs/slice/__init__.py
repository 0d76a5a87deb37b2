"""model + vocabulary -> model."""

"""corpus + vocabulary -> shards."""

"""Shards -> batches: which sequences, in which order, and how they are loaded."""

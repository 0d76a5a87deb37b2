"""Shards -> batches: which sequences, in which order, how they reach the device."""

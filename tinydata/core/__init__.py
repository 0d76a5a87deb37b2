"""Foundations used by every other package: errors, schemas, locations, outputs, quarantine, hashing, text."""

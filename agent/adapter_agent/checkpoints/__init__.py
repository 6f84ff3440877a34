"""Checkpoints in object storage: claimed, committed, fetched, verified, kept or removed."""

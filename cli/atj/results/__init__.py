"""Commands that work on what jobs left in object storage: checkpoints, pictures, exports."""

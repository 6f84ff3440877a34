"""The object store behind the commands: committed checkpoints, the embedded store, the folder of an output."""

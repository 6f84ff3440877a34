"""The process beside every trainer: moves files between a node's work folder and object storage, and commits."""

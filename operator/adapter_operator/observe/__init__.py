"""What the cluster holds, as the operator last saw it."""

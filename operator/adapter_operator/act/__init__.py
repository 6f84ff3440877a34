"""What the operator makes and removes in the cluster."""

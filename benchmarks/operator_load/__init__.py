"""A load of jobs on a control plane without kubelets: how an operator, or none, copes with it."""

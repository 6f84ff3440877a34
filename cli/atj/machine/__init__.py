"""Commands that work on this machine: init, run, validate, plan, explain."""

"""Pictures drawn from the model, and figures that judge it: held-out loss, obedience to conditions."""

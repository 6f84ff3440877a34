"""Tests of the operator: the pure parts, and the whole on a real control plane."""

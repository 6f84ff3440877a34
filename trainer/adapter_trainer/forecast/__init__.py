"""What a run will take before it begins: FLOPs, memory by phase, seconds a step."""

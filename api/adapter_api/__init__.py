"""The contract that operator, trainer, agent and command line agree on: pydantic models and pure functions over them."""

"""The three commands of the agent: restore, sync, train."""

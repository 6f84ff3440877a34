"""The user's command `atj`: trains on this machine, lists and fetches checkpoints, draws from them, checks files."""

"""Data, models and encodings that a node fetches before its trainer starts."""

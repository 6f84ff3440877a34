"""Encodings of pictures and captions, computed once and read back in later epochs and runs."""

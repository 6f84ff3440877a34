"""The run itself: set up, stepped, saved and resumed."""

"""The demonstration: digits from their labels, trained on two nodes, judged by a classifier that saw other digits."""

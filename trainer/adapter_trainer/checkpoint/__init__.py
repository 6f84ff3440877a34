"""A checkpoint folder and how it is written beside training, without holding up a step."""

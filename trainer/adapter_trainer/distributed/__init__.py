"""The processes of a run: their ranks, what they tell each other, and a request to stop that all of them see."""

"""The demonstrations: four adapters on a small frozen base; and emoji from four conditions at once, trained from nothing."""

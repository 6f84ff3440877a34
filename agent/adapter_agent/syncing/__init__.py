"""What runs beside a trainer: uploads as saves appear, and answers how far they are."""

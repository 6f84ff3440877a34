"""What is trained and what it is trained on top of: UNet, adapters, encoders, objective, and where their weights come from."""

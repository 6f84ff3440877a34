"""What others load: the model card, and a trained model as a base for the next one."""

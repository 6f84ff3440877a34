"""The trainer: SDXL adapters with torch, diffusers and accelerate; it reads and writes folders and knows no network."""

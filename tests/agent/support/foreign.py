"""What other programs leave in a bucket that is ours as well."""

ACCELERATE = (
    "checkpoint-500/optimizer.bin", "checkpoint-500/scheduler.bin", "checkpoint-500/random_states_0.pkl",
    "checkpoint-500/unet/config.json", "checkpoint-500/unet/diffusion_pytorch_model.safetensors",
)  # fmt: skip
"""What `accelerator.save_state` writes in diffusers' examples."""

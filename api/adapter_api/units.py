"""PURE: the unit that a field's number counts in, by the end of the field's path."""

_UNITS = {
    # Time.
    "deletion_delay_seconds": "s", "backoffSeconds": "s", "hangSeconds": "s", "activeDeadlineSeconds": "s",
    "ttlSecondsAfterFinished": "s", "terminationGracePeriodSeconds": "s", "tolerationSeconds": "s", "etaSeconds": "s",
    "saveSeconds": "s", "commitSeconds": "s",
    # The course of a run.
    "max_train_steps": "optimizer steps", "lr_warmup_steps": "optimizer steps", "save_steps": "optimizer steps",
    "keep_every": "optimizer steps", "log_steps": "optimizer steps", "step": "optimizer steps",
    "totalSteps": "optimizer steps", "resumedStep": "optimizer steps", "lostSteps": "optimizer steps",
    "num_train_epochs": "epochs", "lr_num_cycles": "cycles", "gradient_accumulation_steps": "passes", "keep_last": "checkpoints",
    "keep_best.count": "checkpoints", "maxRestarts": "restarts", "charged": "restarts", "uncharged": "restarts",
    "total": "restarts",
    # Noise.
    "num_train_timesteps": "noise levels", "steps_offset": "noise levels", "evaluation.timesteps": "noise levels",
    "sampling.steps": "denoising steps",
    # Pictures and samples.
    "resolution": "pixels", "image_size": "pixels", "patch_size": "pixels", "aspect_buckets.step": "pixels",
    "sample_size": "latents", "background": "levels", "train_batch_size": "samples", "cache.batch_size": "inputs", "evaluation.samples": "samples",
    "evaluation.pictures": "pictures", "images_per_row": "pictures", "imagesPerSecond": "images/s",
    # Shapes.
    "num_tokens": "tokens", "vocab_size": "tokens", "max_position_embeddings": "tokens", "columns[].width": "numbers",
    "depth": "layers", "num_hidden_layers": "layers", "layers_per_block": "layers",
    "transformer_layers_per_block": "layers", "heads": "heads", "num_attention_heads": "heads",
    "attention_head_dim": "heads", "norm_num_groups": "groups",
    **dict.fromkeys(("in_channels", "out_channels", "block_out_channels", "latent_channels"), "channels"),
    **dict.fromkeys(
        (
            "cross_attention_dim", "addition_time_embed_dim", "projection_class_embeddings_input_dim", "hidden_size",
            "intermediate_size", "projection_dim", "hidden_dim",
        ),
        "numbers",
    ),
    # Machines.
    "nodes": "pods", "procsPerNode": "processes", "num_workers": "processes", "ready": "pods", "active": "pods",
    "failed": "pods", "bytes": "bytes", "sizeLimit": "bytes", "sharedMemory": "bytes", "limits": "Kubernetes quantities",
    "requests": "Kubernetes quantities", "maxSkew": "pods", "minDomains": "places", "percent": "%", "goodputPercent": "%",
}  # fmt: skip
_WITHOUT = frozenset(
    {
        "learning_rate", "lr_power", "lr_end", "dropout", "joint_dropout", "rank", "alpha", "scaling_factor", "scale", "beta_start", "beta_end",
        "max_ratio", "betas", "weight_decay", "eps", "d_coef", "clip_threshold", "max_grad_norm", "min_snr_gamma",
        "offset_noise", "decay", "guidance_scale", "adapter_scales", "seed", "rows", "columns", "generation",
        "observedGeneration", "attempt", "loss", "metrics", "node", "exitCode", "weight", "runAsUser",
        "runAsGroup", "fsGroup",
    }
)  # fmt: skip
"""Numbers that count nothing: rates, shares, weights, ordinals, identities."""


def unit_of(path: str, kind: str) -> str:
    """The unit; empty of what is no quantity.

    Args:
        path: As `FieldText.path`.
        kind: As `FieldText.type`.

    Raises:
        LookupError: a number whose unit is not stated here.
    """
    if "integer" not in kind and "number" not in kind:
        return ""
    parts = path.split(".")
    for length in (2, 1):
        if (unit := _UNITS.get(".".join(parts[-length:]))) is not None:
            return unit
    if parts[-1] in _WITHOUT:
        return ""
    raise LookupError(f"{path}: state the unit of its number in adapter_api/units.py")

"""The closing picture grid of a run, drawn with the averaged weights if there are any."""

from adapter_trainer.loop import Training
from adapter_trainer.sample import Sampler, grid


def draw_closing_grid(run: Training) -> None:
    """Writes samples/step-<step>.png with one row for each entry of config.sampling.rows; collective."""
    state = run.state
    sampling = state.config.sampling
    path = run.output / "samples" / f"step-{state.step}.png"
    if run.processes.is_main and sampling.rows and not path.exists():
        run.report.phase("sampling", state.step)
        parameters = [parameter for _, parameter in state.trained()]
        if state.ema is not None:
            state.ema.store(parameters)
            state.ema.copy_to(parameters)
        state.model.eval()
        images = Sampler(state.model, state.config, state.accelerator.device).draw(
            sampling.rows, sampling.images_per_row
        )
        state.model.train()
        if state.ema is not None:
            state.ema.restore(parameters)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}")
        grid(images, sampling.images_per_row).save(aside, format="PNG")
        aside.replace(path)
    run.processes.barrier()

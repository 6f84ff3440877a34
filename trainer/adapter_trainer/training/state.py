"""Everything that changes during training, and how a checkpoint folder stores it and gives it back."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adapter_api.compatibility import differences
from adapter_api.document import InvalidDocument, dump, read, validate
from adapter_api.layout import (
    CARD_FILE,
    CHECKPOINT_HISTORY_FILE,
    EXPORT_FILE,
    METRICS_FILE,
    STATE_FILE,
    TRAINING_FILE,
    VERSIONS_FILE,
)
from adapter_api.training import TrainingConfig
from adapter_trainer import circumstances
from adapter_trainer.checkpoint import checkpoint_folder, tensor_files
from adapter_trainer.checkpoint.arena import Contents
from adapter_trainer.checkpoint.tensor_files import StoredTensors
from adapter_trainer.circumstances import versions
from adapter_trainer.distributed.processes import Processes
from adapter_trainer.errors import DamagedCheckpoint, IncompatibleCheckpoint, InvalidConfig
from adapter_trainer.model import base_digests, sharding, weights
from adapter_trainer.model.adapter_model import AdapterModel
from adapter_trainer.publishing import card
from adapter_trainer.publishing.card import DataRecord
from adapter_trainer.training import optimizers, randomness, trained_data
from adapter_trainer.training.learning_rates import LearningRates, scale_of
from adapter_trainer.training.length import Length

OPTIMIZER_FILE, SCHEDULER_FILE, ACCELERATE_FILE = "optimizer.json", "scheduler.json", "accelerate.json"
"""Files of a checkpoint that only the trainer reads."""


@dataclass
class TrainingState:
    """The changing state of a run."""

    config: TrainingConfig
    model: AdapterModel
    """The model, without the wrapper for several processes."""
    optimizer: AcceleratedOptimizer
    rates: LearningRates
    ema: EMAModel | None
    accelerator: Accelerator
    data: DataRecord
    history: Path
    """What the run has reported; every checkpoint holds a copy."""
    step: int = 0
    """Number of optimizer steps taken."""
    seen: int = 0
    """Number of samples that all processes have read: with the seed, the whole state of the data."""
    skipped: int = 0
    """Number of those samples whose gradients overflowed, so that no step was taken."""
    length: Length | None = None
    """Length of the run; set by `begin`."""
    unit: int = 0
    """Samples per step when the run started; if the checkpoint has not kept it, the mean so far. 0 before the first step."""
    span: int | None = None
    """Steps of the learning-rate schedule that the checkpoint has followed, if it says so."""
    base: dict[str, str] = field(default_factory=dict)
    """Digests, by part, of the loaded weights that training does not change."""
    notices: list[str] = field(default_factory=list)
    """Notes for people: what differs from the circumstances in which the checkpoint was made."""
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Identity of this run in trackers, the same after every start."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The newest metrics, which the checkpoint holds."""

    @property
    def learned(self) -> int:
        """Number of samples that steps have learned from."""
        return self.seen - self.skipped

    def begin(self, length: Length) -> None:
        """Starts the learning-rate schedule of a run of this length at the point where this state is."""
        self.length = length
        scale = scale_of(self.config.optimization, length.span)
        self.rates.follow(scale, length.position(self.step, self.learned))

    def advance(self, samples: int) -> None:
        """Counts an optimizer step, and its samples of all processes."""
        self.step += 1
        self.seen += samples
        if self.length is not None:
            self.rates.move(self.length.position(self.step, self.learned))
        if self.ema is not None:
            self.ema.step(self.trained_rows())

    def skip(self, samples: int) -> None:
        """Counts samples whose gradients overflowed: they were read, and nothing was learned from them."""
        self.seen += samples
        self.skipped += samples

    def trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Returns the trained parameters by name, in the optimizer's order."""
        for group in self.optimizer.param_groups:
            yield from zip(group["names"], group["params"], strict=True)

    def trained_rows(self) -> list[Tensor]:
        """Returns this rank's share of the trained parameters, in the same order: all of them, unless they are sharded."""
        return [sharding.rows_of(parameter) for _, parameter in self.trained()]

    def is_finite(self, processes: Processes) -> bool:
        """Whether all trained parameters are finite; the same answer on every rank."""
        mine = all(bool(rows.isfinite().all()) for rows in self.trained_rows())
        return all(processes.gather(mine)) if sharding.is_sharded(self.model) else mine

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Gives the model its averaged weights inside the block, if an average is kept; collective."""
        rows = self.trained_rows()
        if self.ema is not None:
            self.ema.store(rows)
            self.ema.copy_to(rows)
        try:
            with sharding.whole(self.model):
                yield
        finally:
            if self.ema is not None:
                self.ema.restore(rows)

    # --- out ---

    def contents(self, processes: Processes) -> Contents:
        """Returns this rank's files of a checkpoint: tensors as they are in memory, and small values as they are now."""
        found = Contents(blobs={randomness.file_name(processes.rank): randomness.state()})
        shards = processes.world_size if sharding.is_sharded(self.model) else 0
        if processes.is_main or shards:
            for part, tensors in self._parts():
                file = tensor_files.name_of(part, processes.rank, shards)
                found.tensors[file] = tensor_files.own(tensors, processes.rank)
        if not processes.is_main:
            return found
        record = card.record_of(
            self.model, self.config, step=self.step, averaged=self.ema is not None, data=self.data, versions=versions()
        )
        scaler = self.accelerator.scaler
        records = {
            OPTIMIZER_FILE: optimizers.kept_of(self.optimizer.param_groups),
            SCHEDULER_FILE: {
                "samples_per_step": self.unit if self.length is None else self.length.unit,
                "steps": self.span if self.length is None else self.length.span,
            },
            ACCELERATE_FILE: {
                "num_processes": self.accelerator.num_processes,
                "mixed_precision": self.accelerator.mixed_precision,
                "gradient_accumulation_steps": self.accelerator.gradient_accumulation_steps,
                "grad_scaler": scaler.state_dict() if scaler is not None else None,
            },
            METRICS_FILE: self.metrics,
            VERSIONS_FILE: versions(),
            EXPORT_FILE: record.to_json(),
            STATE_FILE: {
                "step": self.step,
                "samples_seen": self.seen,
                "samples_skipped": self.skipped,
                "ema_step": 0 if self.ema is None else self.ema.optimization_step,
                "base": self.base,
                "data": trained_data.kept_of(self.data),
                "circumstances": self._circumstances(processes.world_size),
                "run_id": self.run_id,
            },
        }
        for name, values in records.items():
            found.blobs[name] = json.dumps(values, indent=1).encode()
        found.blobs[CARD_FILE] = card.card_of(record).encode()
        found.blobs[CHECKPOINT_HISTORY_FILE] = self.history.read_bytes()
        found.blobs[TRAINING_FILE] = self._configuration
        return found

    def _circumstances(self, processes: int) -> dict[str, Any]:
        return {**versions(), **circumstances.of_device(self.accelerator.device), "processes": processes}

    @cached_property
    def _configuration(self) -> bytes:
        return dump(self.config).encode()

    def _parts(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Returns all tensors, by the name of their file."""
        yield from weights.files_of(self.model, self.averages()).items()
        yield "optimizer", self._optimizer_tensors()

    def averages(self) -> dict[str, Tensor] | None:
        """Returns the averaged weights by parameter of the model, if an average is kept."""
        if self.ema is None:
            return None
        shadows = zip(self.trained(), self.ema.shadow_params, strict=True)
        return {name: sharding.with_rows(parameter, shadow) for (name, parameter), shadow in shadows}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": value
            for name, parameter in self.trained()
            for key, value in optimizers.as_tensors(self.optimizer.state.get(parameter, {})).items()
        }

    # --- in ---

    def load(self, folder: Path, processes: Processes, *, is_own: bool) -> None:
        """Continues from a checkpoint; collective. Ranks receive the files that they lack from a rank that has them.

        If the checkpoint belongs to this output (`is_own`), nothing that matters in its configuration may differ. From
        another run's checkpoint, weights, optimizer state and progress are loaded, with this configuration's settings.

        Raises:
            IncompatibleCheckpoint: Names every field that differs.
            DamagedCheckpoint: A file is not what was written.
            InvalidConfig: There is no checkpoint in the folder.
        """
        holders = processes.gather((folder / STATE_FILE).is_file())
        if not any(holders):
            raise InvalidConfig(
                f"--resume_from_checkpoint: {folder} has no {STATE_FILE}, so it is not a checkpoint; name a "
                "checkpoint-<step> folder, or latest"
            )
        source = holders.index(True)
        error: Exception | None = None
        names = tensor_files.names_in(folder)
        if processes.rank != source and not all(holders):
            names = [name for name in names if tensor_files.is_shard(name)]
        records: dict[str, Any] | None = None
        try:
            if names:
                _check(folder, names)
            if processes.rank == source or all(holders):
                records = _records(folder)
                self._check_compatible(folder, records[STATE_FILE], is_own=is_own)
        except (DamagedCheckpoint, IncompatibleCheckpoint) as found:
            error = found
        if (error := processes.first_error(error)) is not None:
            raise error
        tensors = tensor_files.gathered(folder, names, processes)
        agreed = processes.gather(records)[source] or {}
        self._apply(tensors, agreed, folder)
        self._note(agreed[STATE_FILE], processes.world_size, is_own=is_own)
        own = folder / randomness.file_name(processes.rank)
        if own.is_file() and checkpoint_folder.fault_of(folder) is None:
            randomness.load(own)
        else:
            randomness.seed(self.config.seed, self.step, processes.rank)

    def _check_compatible(self, folder: Path, progress: dict[str, Any], *, is_own: bool) -> None:
        try:
            saved = validate(TrainingConfig, read(folder / TRAINING_FILE))
        except InvalidDocument as error:
            raise DamagedCheckpoint(f"{folder}: {error}") from None
        if not is_own:
            return
        if found := differences(saved, self.config):
            raise IncompatibleCheckpoint(
                f"{folder} was made with another configuration and must not be continued with this one:\n"
                + "\n".join(f"  {line}" for line in found)
                + "\nUse the old configuration, or another output folder"
            )
        if found := trained_data.changes(progress.get("data", {}), self.data):
            raise IncompatibleCheckpoint(
                f"{folder} was trained on other data than what {self.data.table} gives now: {', '.join(found)}; put back what "
                "was there, or begin a new run with this checkpoint: another output, and --resume_from_checkpoint (of a job, "
                "spec.resumeFrom)"
            )
        if changed := self._other_base(progress):
            raise IncompatibleCheckpoint(
                f"{folder} was trained with other weights of {', '.join(changed)} than what is loaded now from the same "
                "place; restore what was there (on the hub: the commit, as `revision`), or use another output folder"
            )

    def _other_base(self, progress: dict[str, Any]) -> list[str]:
        begun = progress.get("base", {})
        return sorted(part for part, digest in begun.items() if base_digests.differs(digest, self.base.get(part)))

    def _note(self, progress: dict[str, Any], processes: int, *, is_own: bool) -> None:
        """Notes what differs from the circumstances of the checkpoint. What a resume refuses has been refused before."""
        if not is_own:
            if found := trained_data.changes(progress.get("data", {}), self.data):
                self.notices.append(f"begins from a checkpoint of other data: {', '.join(found)}")
            if changed := self._other_base(progress):
                self.notices.append(f"begins from a checkpoint trained with other weights of {', '.join(changed)}")
            return
        self.run_id = progress.get("run_id", self.run_id)
        if self.config.data.params.aspect_buckets is not None and "data" not in progress:
            self.notices.append(
                "the checkpoint is of a build whose buckets had fewer sizes; from here on there are all"
            )
        if found := circumstances.changes(progress.get("circumstances", {}), self._circumstances(processes)):
            self.notices.append(f"continues, but not with bit-identical results: {'; '.join(found)}")

    def _apply(self, tensors: StoredTensors, records: dict[str, Any], folder: Path) -> None:
        parts, shadows = weights.weights_in(self.model, tensors.part)
        for name, module in self.model.saved_parts().items():
            current = module.state_dict()
            try:
                module.load_state_dict(
                    {key: sharding.like(current.get(key), value) for key, value in parts[name].items()}, strict=True
                )
            except RuntimeError as error:
                line = str(error).splitlines()[min(1, len(str(error).splitlines()) - 1)].strip()
                raise IncompatibleCheckpoint(
                    f"{folder}: the weights of {name} do not fit this configuration: {line}"
                ) from None
        if self.ema is not None:
            for (name, parameter), shadow in zip(self.trained(), self.ema.shadow_params, strict=True):
                average = sharding.like(parameter, shadows[name]) if name in shadows else parameter.detach()
                shadow.copy_(sharding.rows_of(average))
            self.ema.optimization_step = int(records[STATE_FILE]["ema_step"])
        self._load_optimizer(tensors.part("optimizer"), records[OPTIMIZER_FILE], folder)
        scaler = self.accelerator.scaler
        if scaler is not None and records[ACCELERATE_FILE]["grad_scaler"]:
            scaler.load_state_dict(records[ACCELERATE_FILE]["grad_scaler"])
        self.step = int(records[STATE_FILE]["step"])
        self.seen = int(records[STATE_FILE]["samples_seen"])
        self.skipped = int(records[STATE_FILE].get("samples_skipped", 0))
        self.span = records[SCHEDULER_FILE].get("steps")
        mean = round(self.seen / self.step) if self.step else 0
        self.unit = int(records[SCHEDULER_FILE].get("samples_per_step", mean))

    def _load_optimizer(self, tensors: StoredTensors, groups: list[dict[str, Any]], folder: Path) -> None:
        parameters = dict(self.trained())
        saved: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, kind = key.rpartition(".")
            # Of a parameter's shape are its averages; counters and factors are whole on every rank.
            reference = parameters.get(name)
            of_its_shape = reference is not None and reference.shape == value.shape
            saved.setdefault(name, {})[kind] = sharding.like(reference, value) if of_its_shape else value
        if unknown := saved.keys() - parameters.keys():
            raise IncompatibleCheckpoint(
                f"{folder}: optimizer.safetensors holds {min(unknown)}, which this configuration does not train; train "
                "the same parts, or continue from the weights alone with another output folder"
            )
        target = self.config.optimization.optimizer.target
        if other := next((maker for each in saved.values() if (maker := optimizers.maker_of(each)) != target), None):
            raise IncompatibleCheckpoint(
                f"{folder}: optimizer.safetensors is of {other}, this configuration's optimizer is {target}; use the same"
            )
        state = self.optimizer.state_dict()
        # A parameter that never had a gradient has no state.
        found = {
            index: optimizers.from_tensors(saved[name])
            for index, (name, _) in enumerate(self.trained())
            if name in saved
        }
        self.optimizer.load_state_dict({"state": found, "param_groups": state["param_groups"]})
        optimizers.restore_progress(self.optimizer.param_groups, groups)


def _check(folder: Path, names: list[str]) -> None:
    """Raises DamagedCheckpoint unless the folder is complete and its tensor files can be read."""
    checkpoint_folder.check(folder)
    for name in names:
        try:
            with safe_open(folder / name, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise DamagedCheckpoint(f"{folder}: {name}: {error}; use another checkpoint") from None


def _records(folder: Path) -> dict[str, Any]:
    """The contents of a checkpoint's files that hold no tensors."""
    try:
        return {
            name: json.loads((folder / name).read_text(encoding="utf-8"))
            for name in (OPTIMIZER_FILE, SCHEDULER_FILE, ACCELERATE_FILE, STATE_FILE)
        }
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{folder}: {error}; use another checkpoint") from None

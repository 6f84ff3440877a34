"""PURE: the files and folders that trainer, agent, operator and command line hand each other."""

# --- the work folder of a node ---

TRAINING_FILE = "training.yaml"
"""The training configuration that a node starts from; also in every checkpoint, as that was made with it."""
OUTPUT_FOLDER = "output"
"""What the trainer writes."""
MODELS_FOLDER = "models"
"""Models that were staged from object storage."""
AGENT_FOLDER = "agent"
"""What the agent keeps for itself."""
ADDRESS_FILE = "address.json"
"""In the agent's folder: where it serves /progress and /metrics, as `{"url": ...}`."""

# --- the output folder ---

PROGRESS_FILE = "progress.json"
"""How far the run is (`adapter_api.progress.Progress`)."""
OUTCOME_FILE = "outcome.json"
"""How it ended (`adapter_api.progress.Outcome`)."""
HISTORY_FILE = "metrics.jsonl"
"""Every report of the run, a line each."""
CACHE_FOLDER = "cache"
"""What encoders made of pictures and captions, unless the configuration names another folder."""
LOGS_FOLDER = "logs"
"""Trackers' files, and the report page."""
PAGE_FILE = "report.html"
"""In logs: the report page."""
SAMPLES_FOLDER = "samples"
"""Picture grids."""

# --- a checkpoint folder ---

STATE_FILE = "trainer_state.json"
"""Step, samples read, and what the checkpoint was made on; without it a folder is no checkpoint."""
METRICS_FILE = "metrics.json"
"""The newest figures of the run when it was saved."""
VERSIONS_FILE = "versions.json"
"""The libraries that made it."""
CHECKPOINT_HISTORY_FILE = "history.jsonl"
"""The reports of the run until then."""
EXPORT_FILE = "export.json"
"""What the checkpoint says of itself, for programs; `atj export` copies it."""
CARD_FILE = "README.md"
"""The same for people: the model card."""

"""A fault names the field as its author wrote it, its line, and what to give instead."""

import pytest

from adapter_api.document import Fault, InvalidDocument, dump, parse, validate
from adapter_api.model import ModelConfig, ModelParams
from adapter_api.networks import UNetConfig
from adapter_api.sections import SamplingConfig
from adapter_api.training import TrainingConfig

TRAINED = "model: {params: {token_conditioners: {label_to_token: {}}}}\n"

SEED_SHAPE = """\
model:
  params:
    unet_config: {...}
    first_stage_config: {...}
    adapters_config: {...}
    token_conditioners:
      label_to_token: {...}
      embed_to_token: {...}
data:
  params:
    resolution: 1024
    data_root_path: /path/to/dataset
    pairs_file_path: /path/to/train.txt
"""


def config(text: str) -> TrainingConfig:
    return validate(TrainingConfig, parse(text, "a.yaml"))


def refusal(text: str) -> str:
    with pytest.raises(InvalidDocument) as refused:
        config(text)
    return str(refused.value)


def test_the_documented_shape_is_accepted_as_it_stands() -> None:
    read = config(SEED_SHAPE)
    assert [path.field for path in read.model.conditioned] == [
        "model.params.token_conditioners.label_to_token",
        "model.params.token_conditioners.embed_to_token",
    ]
    assert read.data.params.resolution == 1024
    assert read.model.params.unet_config.params.block_out_channels == (320, 640, 1280)


def test_unknown_fields_are_refused_with_path_and_line() -> None:
    assert refusal(TRAINED + "optimization:\n  learning_rte: 1e-4\n") == (
        "a.yaml:3: optimization.learning_rte: is not a field here; did you mean learning_rate?"
    )


def test_every_fault_is_reported_at_once_in_the_order_of_lines() -> None:
    lines = refusal("seed: -1\nmodel: {}\nsampling:\n  steps: 0\n  guidance_scale: .nan\n").splitlines()
    assert [line.split(": ", 2)[:2] for line in lines] == [
        ["a.yaml:1", "seed"],
        ["a.yaml:4", "sampling.steps"],
        ["a.yaml:5", "sampling.guidance_scale"],
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("seed: true", "seed: give an integer, not true"),
        ("seed: '7'", "seed: give an integer, not '7'"),
        ("seed: １２", "seed: give an integer, not '１２'"),
        ("seed: 1.5", "seed: give an integer, not 1.5"),
        ("seed: 4294967296", "seed: give a number of at most 4294967295, not 4294967296"),
        ("seed: null", "seed: give an integer, not nothing"),
        ("optimization: {num_train_epochs: 0}", "optimization.num_train_epochs: give a number of at least 1, not 0"),
        ("optimization: {num_train_epochs: 9007199254740992}", "give a number of at most 9007199254740991"),
        ("optimization: {learning_rate: -1e-4}", "optimization.learning_rate: give a number of more than 0"),
        ("optimization: {learning_rate: true}", "optimization.learning_rate: give a number, not true"),
        ("optimization: {learning_rate: 1e300}", "optimization.learning_rate: give a number of at most"),
        ("optimization: {mixed_precision: fp8}", "give 'no', 'fp16' or 'bf16', not 'fp8'"),
        ("optimization: {optimizer: {params: {betas: [0.9, 1]}}}", "betas[1]: give a number of less than 1"),
        ("optimization: {optimizer: {params: {betas: [0.9]}}}", "betas[1]: is required"),
        ("optimization: 3", "optimization: give a mapping of fields, not 3"),
        ("data: {params: {random_flip: yes}}", "data.params.random_flip: give true or false, not 'yes'"),
        ("data: {params: {random_flip: 1}}", "data.params.random_flip: give true or false, not 1"),
        ("data: {params: {columns: [{name: Label, kind: label}]}}", "columns[0].name: 'Label' is not a name"),
        ("data: {params: {columns: [{name: a}]}}", "data.params.columns[0].kind: is required"),
        ("logging: {report_to: tensorboard}", "logging.report_to: give a list, not 'tensorboard'"),
        ("logging: {report_to: [mlflow]}", "logging.report_to[0]: give 'tensorboard' or 'wandb'"),
        ("model: {target: os.system}", "model.target: give 'SDXL', not 'os.system'"),
        ("model: {params: {unet_config: {target: builtins.eval}}}", "unet_config.target: give 'UNet2DConditionModel'"),
        ("data: {target: subprocess.Popen}", "data.target: give 'PairsDataset', not 'subprocess.Popen'"),
        ("model: {params: {adapters_config: {style: {layers: []}}}}", "style.layers: give a list of at least 1"),
        ("model: {params: {adapters_config: {../x: {}}}}", "'../x' is not a name"),
        ("model: {params: {unet_config: {params: {block_out_channels: []}}}}", "block_out_channels: give a list of at"),
        (
            "model: {params: {first_stage_config: {params: {norm_num_groups: 7}}}}",
            "first_stage_config.params: block_out_channels 128 is not a multiple of norm_num_groups 7; change one",
        ),
    ],
)
def test_a_refusal_says_what_to_give(text: str, fault: str) -> None:
    assert fault in refusal(text)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("0", "give a number of at least 1 or a list, not 0"),
        ("x", "give an integer or a list, not 'x'"),
        ("[1, x, 3]", "[1]: give an integer, not 'x'"),
    ],
)
def test_alternatives_are_one_fault(written: str, fault: str) -> None:
    refused = refusal(f"model: {{params: {{unet_config: {{params: {{layers_per_block: {written}}}}}}}}}")
    assert fault in refused
    assert len(refused.splitlines()) == 1


@pytest.mark.parametrize("written", ["no", "false", "'no'"])
def test_mixed_precision_no_needs_no_quotes_whichever_reader_came_before(written: str) -> None:
    assert config(TRAINED + f"optimization: {{mixed_precision: {written}}}").optimization.mixed_precision == "no"


def test_a_number_without_a_point_is_a_number() -> None:
    read = config(TRAINED + "optimization: {learning_rate: 1e-4, max_grad_norm: 1, train_batch_size: 8.0}").optimization
    assert (read.learning_rate, read.max_grad_norm, read.train_batch_size) == (1e-4, 1.0, 8)
    assert type(read.max_grad_norm) is float
    assert type(read.train_batch_size) is int


def test_rules_across_fields_name_fields_that_were_left_at_their_defaults() -> None:
    refused = refusal(TRAINED.replace("}}}}", "}}, first_stage_config: {target: Pixels}}}"))
    assert "model.params.unet_config.params.in_channels: is 4, but the first stage gives 3 channels; set 3" in refused


def test_rules_at_the_same_place_are_all_reported() -> None:
    refused = refusal("seed: 1")
    assert "nothing is trained" in refused
    assert "has no condition at all" in refused


def test_a_value_that_was_refused_while_reading_is_not_reported_twice() -> None:
    assert refusal(TRAINED + "seed: .nan") == "a.yaml:2: seed: .nan is not a finite number"


def test_a_value_refused_where_nothing_would_do_is_still_refused() -> None:
    assert "is not a finite number" in refusal(TRAINED + "optimization: {max_grad_norm: .inf}")


def test_a_section_is_validated_by_itself_and_missed_by_name() -> None:
    document = parse("spec:\n  training:\n    seed: x\n", "job.yaml")
    with pytest.raises(InvalidDocument, match=r"job\.yaml:3: spec\.training\.seed: give an integer"):
        validate(TrainingConfig, document, at=("spec", "training"))
    with pytest.raises(InvalidDocument, match=r"job\.yaml:1: spec\.output: is required"):
        validate(TrainingConfig, document, at=("spec", "output", "s3"))


def test_paths_read_as_they_are_written() -> None:
    assert Fault("a", ("spec", "columns", 2, "name"), "x").path == "spec.columns[2].name"
    assert Fault("a", ("labels", "a.b/c"), "x").path == "labels['a.b/c']"


@pytest.mark.parametrize(
    "text", ["1e5", "12e45", "0o17", "no", "1_0", "12:30", "~", "", " x ", "a\nb", "a\rb", "ü\u2028", "..."]
)
def test_texts_that_look_like_something_else_survive_being_written(text: str) -> None:
    written = TrainingConfig(
        model=ModelConfig(params=ModelParams(unet_config=UNetConfig(train=True), pretrained_model_name_or_path="sdxl")),
        sampling=SamplingConfig(rows=({"caption": text},)),
    )
    assert config(dump(written)) == written

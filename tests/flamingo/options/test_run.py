"""What `mmdata train` is told, and what it says to nonsense."""

from dataclasses import fields

import pytest

from flamingo.inference.options import Generate
from flamingo.models.flamingo.options import Train
from flamingo.options.run import REFUSED
from mmdata.cli.main import main
from mmdata.errors import UserError

#: Every flag of OpenFlamingo's train.py.
OPENFLAMINGO_FLAGS = [
    "vision_encoder_path",
    "vision_encoder_pretrained",
    "lm_path",
    "tokenizer_path",
    "cross_attn_every_n_layers",
    "run_name",
    "resume_from_checkpoint",
    "delete_previous_checkpoint",
    "batch_size_mmc4",
    "batch_size_laion",
    "gradient_accumulation_steps",
    "seed",
    "learning_rate",
    "lr_scheduler",
    "loss_multiplier_mmc4",
    "loss_multiplier_laion",
    "warmup_steps",
    "weight_decay",
    "precision",
    "gradient_checkpointing",
    "num_epochs",
    "offline",
    "freeze_lm_embeddings",
    "logging_steps",
    "laion_shards",
    "mmc4_shards",
    "workers",
    "train_num_samples_mmc4",
    "train_num_samples_laion",
    "dataset_resampled",
    "mmc4_textsim_threshold",
    "mmc4_max_num_images",
    "mmc4_min_num_images",
    "dist_url",
    "dist_backend",
    "no_set_device_rank",
    "horovod",
    "fsdp",
    "fsdp_use_orig_params",
    "fsdp_sharding_strategy",
    "report_to_wandb",
    "wandb_project",
    "wandb_entity",
    "save_checkpoints_to_wandb",
]


def options(**changes: object) -> Train:
    given: dict[str, object] = {"lm_path": "lm", "run_name": "run", "mmc4_shards": "shards"}
    return Train(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("flag", OPENFLAMINGO_FLAGS)
def test_each_of_openflamingos_flags_is_taken_or_answered(flag: str) -> None:
    assert (flag in {column.name for column in fields(Train)}) != (flag in REFUSED)


@pytest.mark.parametrize("flag", ["--horovod", "--dist-url=env://", "--save_checkpoints_to_wandb"])
def test_a_refused_flag_gets_one_line_with_what_to_do(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--lm-path", "lm", flag]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"mmdata: {flag.partition('=')[0]}: ")
    assert message.count("\n") == 1


def test_a_threshold_in_percent_is_refused_with_a_guess() -> None:
    expected = r"--mmc4-textsim-threshold 30: similarities are 0 to 1: did you mean 0\.30\?"
    with pytest.raises(UserError, match=expected):
        options(mmc4_textsim_threshold=30.0)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"batch_size_mmc4": 0}, "--batch-size-mmc4"),
        ({"gradient_accumulation_steps": 0}, "--gradient-accumulation-steps"),
        ({"learning_rate": -1.0}, "--learning-rate"),
        ({"keep_single_image": 1.5}, "--keep-single-image"),
        ({"init_from": "a", "resume_from_checkpoint": "b"}, "--init-from"),
        ({"save_epochs": 0}, "--save-epochs"),
        ({"keep_last": 0}, "--keep-last"),
        ({"keep_every": 10}, "--keep-every goes with --keep-last"),
        ({"keep_best": "b", "val_stream": ("a=shards",)}, "--keep-best b: .* --val-stream: a"),
        ({"delete_previous_checkpoint": True, "keep_last": 2}, "--keep-last 1, not 2"),
    ],
)
def test_a_value_that_makes_no_sense_names_its_flag(change: dict[str, object], flag: str) -> None:
    with pytest.raises(UserError, match=flag):
        options(**change)


def test_a_prompt_needs_a_picture_for_each_tag() -> None:
    with pytest.raises(UserError, match="1 <image> tags and there are 0 --image"):
        Generate(checkpoint="run", prompt="<image>An image of")

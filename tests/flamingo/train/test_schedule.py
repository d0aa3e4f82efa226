"""The learning rate over optimizer steps, and the length of a run."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from flamingo.models.flamingo.options import Train
from flamingo.train.schedule import learning_rate_factor, run_steps
from mmdata.errors import UserError


def options(**changes: object) -> Train:
    given: dict[str, object] = {"lm_path": "lm", "run_name": "run", "mmc4_shards": "shards"}
    return Train(**(given | changes))  # type: ignore[arg-type]


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
    warmup=st.integers(0, 20),
    more=st.integers(1, 40),
)
def test_equals_the_schedules_of_transformers(schedule: str, warmup: int, more: int) -> None:
    total = warmup + more
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    reference = transformers.get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=total
    )
    for step in range(total):
        factor = learning_rate_factor(
            step,
            schedule=schedule,  # type: ignore[arg-type]
            warmup_steps=warmup,
            total_steps=total,
        )
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        reference.step()


def test_the_length_is_max_steps_or_epochs_of_whole_batches() -> None:
    assert run_steps(options(max_steps=7), {"mmc4": 8}) == 7
    assert run_steps(options(train_num_samples_mmc4=17, num_epochs=3), {"mmc4": 8}) == 9


def test_a_run_without_a_length_or_with_two_is_refused() -> None:
    with pytest.raises(UserError, match="--max-steps, or --train-num-samples-mmc4"):
        run_steps(options(), {"mmc4": 8})
    two = options(laion_shards="x", train_num_samples_mmc4=16, train_num_samples_laion=80)
    with pytest.raises(UserError, match=r"mmc4: 2, laion: 10\); give --max-steps"):
        run_steps(two, {"mmc4": 8, "laion": 8})


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(UserError, match="--warmup-steps 10: the run has 10 optimizer steps"):
        run_steps(options(max_steps=10, warmup_steps=10), {"mmc4": 8})

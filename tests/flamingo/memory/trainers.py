"""Trainers of a run's model and optimizer, whose data nobody asks for."""

from typing import Any
from unittest.mock import patch

from flamingo.models.flamingo.options import Train
from flamingo.parallel.world import World
from flamingo.train import build
from flamingo.train.loaders import StreamLoader
from flamingo.train.loop import Trainer
from flamingo.train.optim import make_optimizer


def make_trainer(options: Train) -> Trainer:
    """As a run makes it, but for the stream: whether it brings features is what its option says."""
    has_features = options.mmc4_features is not None
    with patch.object(build, "expect_features", return_value=has_features):
        built = build.build_model(options, None, [], World())
    loader: Any = StreamLoader("mmc4", iter(()), 1.0, None, lambda: None)  # type: ignore[arg-type]
    return Trainer(
        wrapped=built,
        optimizer=make_optimizer(built.model, options),
        loaders=[loader],
        options=options,
        total_steps=4,
    )

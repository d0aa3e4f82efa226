"""Precomputed vision features in a run: of the right tower, and whether one is needed at all."""

from collections.abc import Sequence

from flamingo.data.stream import Stream
from flamingo.modules.absent_tower import tower_identity
from flamingo.modules.vision import hub_offline
from flamingo.train.options.train import Train


def expect_features(streams: Sequence[Stream], tower: str, options: Train) -> bool:
    """Have features checked against the tower; returns whether every stream brings its own.

    Args:
        streams: of the run, those that are measured on included.
        tower: open_clip's name of it.
        options: of the run.

    Raises:
        UserError: the tower has no weights to be known by.
    """
    bringing = [stream for stream in streams if stream.config.features is not None]
    if bringing:
        pretrained = None if ":" in tower else options.vision_encoder_pretrained
        with hub_offline(offline=options.offline):
            identity = tower_identity(tower, pretrained, options.vision_tokens)
        for stream in bringing:
            stream.expect_tower(identity)
    return len(bringing) == len(streams)

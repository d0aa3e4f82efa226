"""The rows of the media tokens over a run's resumes: those train that trained when it began.

One rule says which do. The input rows train, as in OpenFlamingo, unless --freeze-lm-embeddings
keeps them. The output rows of an LM that does not tie them stay, as in OpenFlamingo, unless
--train-output-rows asks for more, or all of the LM trains (--freeze vision or none).
"""

import dataclasses
import logging

from flamingo.models.family import Before
from flamingo.models.flamingo.options import Train
from mmdata.errors import UserError

logger = logging.getLogger(__name__)

_INPUT, _OUTPUT = "media_tokens.input_rows", "media_tokens.output_rows"


def with_kept_rows(options: Train, before: Before, *, is_told: bool = True) -> Train:
    """The options of a run that goes on, with the rows training that did when it began.

    Args:
        options: of this start.
        before: what was saved.
        is_told: whether this rank says what was changed.

    Raises:
        UserError: the options ask for rows that have no optimizer state, or to stop those that do.
    """
    checkpoint = before.checkpoint
    if options.freeze_lm_embeddings == (_INPUT in before.trained):
        began = "without" if options.freeze_lm_embeddings else "with"
        raise UserError(_told(checkpoint, "freeze-lm-embeddings", began))
    had = _OUTPUT in before.trained
    # With a tied LM, or one that trains, the option was given and there is nothing to see of it.
    if options.train_output_rows and not before.options.get("train_output_rows", had):
        raise UserError(_told(checkpoint, "train-output-rows", "without"))
    train_with_lm = "lm" not in options.freeze and not options.freeze_lm_embeddings
    if had and not options.train_output_rows and not train_with_lm:
        if is_told:
            logger.warning("the output rows of the media tokens train on, as when this run began")
        return dataclasses.replace(options, train_output_rows=True)
    return options


def _told(checkpoint: str, option: str, began: str) -> str:
    do = "leave it out" if began == "without" else "give it"
    return (
        f"checkpoint {checkpoint}: was written {began} --{option}; {do} to go on, or start another "
        "--run-name from it by --init-from"
    )

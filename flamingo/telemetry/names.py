"""Files of a run that telemetry writes and the report reads, by their names in its folder."""

#: One line an optimizer step; the last of an interval also has the interval's values.
METRICS_NAME = "metrics.jsonl"
#: One line an event: resumed, skipped, saved, validation, preempted.
EVENTS_NAME = "events.jsonl"
#: One line a measurement of the validation streams.
VALIDATION_NAME = "validation.jsonl"
#: One line a phase of a step: bytes by category.
MEMORY_NAME = "memory.jsonl"
OPTIONS_NAME = "options.json"
#: Folder of the samples of GPUs and hosts, one file a rank, and of what services keep.
TELEMETRY_FOLDER = "telemetry"


def rank_name(rank: int) -> str:
    """File of a rank's samples, in the folder of telemetry."""
    return f"rank-{rank}.jsonl"

"""What every command that runs units can be told of the engine that runs them."""

from mmdata.errors import UserError


def check_stall_timeout(seconds: float) -> None:
    """Refuse a patience shorter than the time between two signs of life."""
    if seconds != 0 and not seconds >= 5.0:
        raise UserError(f"--stall-timeout {seconds:g}: expected 0 (off) or at least 5 seconds")

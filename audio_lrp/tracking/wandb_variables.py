"""Environment variables of W&B's that hold what they cannot hold."""

import os

from audio_lrp.errors import UserError


def check_wandb_variables() -> None:
    """Have W&B read its environment variables before anything runs, and not when the run begins.

    Raises:
        UserError: one of them has a value that it cannot have.
    """
    import pydantic
    import wandb

    try:
        wandb.Settings().update_from_env_vars(dict(os.environ))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name, problem = f"WANDB_{first['loc'][0]}".upper(), " ".join(first["msg"].split())
        raise UserError(f"the environment variable {name} is {first['input']!r}: {problem}; fix or unset it") from error

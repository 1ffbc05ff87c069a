"""Errors that a user may see: the message is one sentence, what is wrong and the remedy.

    UserError
      InputError        what was given: an argument, the config, a file
        ConfigError     pdswitch.config
        DatasetError    pdswitch.datasets.sample
      EngineError       pdswitch.engine.client: it did not start, died, or refused a run

Every other exception is a bug and keeps its traceback: see `pdswitch.stages.entry`.
"""


class UserError(Exception):
    """The message is for the user."""


class InputError(UserError, ValueError):
    """What was given is wrong."""

"""The errors that end a command. Each is shown to the user as one line, without a traceback."""


class UsageError(Exception):
    """The user's request can't be carried out as given (exit code 2). The message says what to change."""


class RunError(Exception):
    """A valid request failed while it was carried out (exit code 1). The message says where and why."""


class Interrupted(Exception):
    """The user stopped the command by Ctrl-C (exit code 130). The message says how to go on."""

"""The two ways a command can end badly; both are shown to the user as one line, without a traceback."""


class UsageError(Exception):
    """The user asked for something that can't be done as asked (exit code 2). The message says what to change."""


class RunError(Exception):
    """The work was asked for rightly and failed on the way (exit code 1). The message says where and why."""

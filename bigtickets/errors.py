"""The errors that a command turns into an exit code. Their text is all that the user sees."""


class BigticketsError(Exception):
    """Base of the errors that are shown as one or two lines, without a traceback."""

    exit_code = 1


class InputError(BigticketsError):
    """Something that the user wrote or passed is wrong; says what, where and how to mend it."""

    exit_code = 2


class DamagedError(BigticketsError):
    """A file that was whole once is not any more: weights, a checkpoint, a record."""

    exit_code = 3


class TrialsFailed(BigticketsError):
    """The study went through, but some of its steps failed."""

    exit_code = 4


class Interrupted(BigticketsError):
    """Stopped early on a signal; everything done is kept and the same command goes on."""

    exit_code = 75

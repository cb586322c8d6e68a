"""The one exception whose text is meant for the user."""


class HarnessError(Exception):
    """Something the user can put right; the message names the cause and the next step.

    The command line prints it as one line on stderr and exits with code 2; inside a matrix run it becomes the
    reason of a failed cell. So does an OSError: what the machine refuses is no defect of the harness either. Anything
    else that is raised is one, and keeps its traceback.
    """

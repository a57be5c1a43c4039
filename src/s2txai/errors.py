"""The one exception that carries a sentence for the user."""


class UserError(Exception):
    """Something the user can mend, told in one sentence: what, where, how to fix it.

    Scripts and the command line print the sentence and stop; a traceback would hide it.
    """

"""The exceptions that carry a sentence for the user."""


class UserError(Exception):
    """Something the user can mend, said in one sentence: what, where, how to fix it.

    Scripts and the command line print the sentence and stop; a traceback would hide it.
    """

    def __str__(self) -> str:
        """Return the sentence, which may quote a file from elsewhere, as a terminal can show it."""
        return "".join(
            sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode()
            for sign in super().__str__()
        )


class UtteranceError(UserError):
    """What is wrong with one utterance, said in one sentence; the others can do without it."""

"""What a user is told instead of a traceback."""

from __future__ import annotations


class Problem(Exception):
    """Something that the user can mend.

    Attributes:
        sentences: what is wrong and what to do, one a line.
        status: the command's exit status: 2 for bad input, 1 for anything else.
    """

    def __init__(self, *sentences: str, status: int = 2) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences
        self.status = status

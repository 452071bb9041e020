"""What a step keeps between batches, in words, for `explain`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """`what`, and `until` when; nothing: until the input ends.

    `is_timed`: it is the watermark that lets it go. `grows_with`: what makes it grow as long as records come; nothing: it is
    bounded by what is open or by a number. `remedy`: against that.
    """

    what: str
    until: str = ""
    grows_with: str = ""
    remedy: str = ""
    is_timed: bool = False

    def told(self, *, ends: bool) -> str:
        """In a line. `ends`: whether the input does."""
        if self.grows_with:
            return f"{self.what}; {'kept to the end of the input' if ends else 'for ever'}: grows with {self.grows_with}"
        return f"{self.what}; {self.until or ('kept to the end of the input' if ends else 'for ever')}"

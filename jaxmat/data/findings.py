"""What is wrong or odd with data, told together before the work that needs them starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxmat.errors import UserError

_logger = logging.getLogger(__name__)


@dataclass
class Findings:
    """What the checks of one run have found so far.

    Attributes:
        subject: what was checked, such as the path of a table.
        refusals: what has to be mended first.
        remarks: what one should know.
    """

    subject: str
    refusals: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def stop_if_refused(self) -> None:
        """Ends the run if there is a refusal.

        Raises:
            UserError: all refusals and all remarks so far.
        """
        if self.refusals:
            text = f"{self.subject} cannot be used:\n{_bullets(self.refusals)}"
            if self.remarks:
                text += f"\nAlso noticed:\n{_bullets(self.remarks)}"
            raise UserError(text)

    def tell(self) -> None:
        """Logs all remarks as one warning.

        Raises:
            UserError: there is a refusal.
        """
        self.stop_if_refused()
        if self.remarks:
            _logger.warning("%s:\n%s", self.subject, _bullets(self.remarks))


def some(ids: Sequence[str], most: int = 3) -> str:
    """Returns the first ids of several, in one line."""
    return ", ".join(ids[:most]) + (", ..." if len(ids) > most else "")


def _bullets(texts: Sequence[str]) -> str:
    return "\n".join("- " + text.replace("\n", "\n  ") for text in texts)

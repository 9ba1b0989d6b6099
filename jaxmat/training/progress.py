"""A word on how far a run is: a bar on a terminal, elsewhere a log line now and then."""

from __future__ import annotations

import logging
import time

import numpy as np
from tqdm import tqdm

from jaxmat.runtime import hosts

_logger = logging.getLogger(__name__)


class Progress:
    """A bar on a terminal, elsewhere a log line every half minute.

    Of several processes that are one program the first alone speaks.
    """

    def __init__(self, step: int, total_steps: int):
        """Starts the clock.

        Args:
            step: the step that the run starts from.
            total_steps: its last step.
        """
        # tqdm takes disable=None for "unless stderr is a terminal".
        disable = None if hosts.is_first() else True
        self._bar = tqdm(total=total_steps, initial=step, disable=disable, unit="step")
        self._seconds = 30.0 if self._bar.disable else 1.0
        self._total_steps = total_steps
        self._shown_step, self._shown_at = step, time.monotonic()
        self._crystals = 0.0

    def is_due(self) -> bool:
        """Whether it is time to say something."""
        return hosts.is_first() and time.monotonic() - self._shown_at >= self._seconds

    def update(self, step: int, fetched: list[dict[str, np.ndarray]]) -> None:
        """Takes in the metrics of the last steps and shows them when it is time.

        Args:
            step: the last of these steps.
            fetched: their metrics, with "loss" and "crystals", of one run or of several.
        """
        self._crystals += sum(float(np.sum(metrics["crystals"])) for metrics in fetched)
        self._bar.update(step - self._bar.n)
        if not self.is_due():
            return
        seconds = time.monotonic() - self._shown_at
        rate = self._crystals / seconds
        loss = float(np.mean(fetched[-1]["loss"]))
        left = seconds / (step - self._shown_step) * (self._total_steps - step)
        if self._bar.disable:
            _logger.info(
                "step %d of %d, loss %.4g, %.0f structures/s, %s left",
                step,
                self._total_steps,
                loss,
                rate,
                tqdm.format_interval(left),
            )
        else:
            self._bar.set_postfix_str(f"loss {loss:.4g}, {rate:.0f} structures/s")
        self._shown_step, self._shown_at, self._crystals = step, time.monotonic(), 0.0

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()

"""A measured figure and how it is printed."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure and its yardstick, both from the same run."""

    benchmark: str
    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float | None
    ratio: float | None
    """The value divided by the yardstick; or their difference, if the goal is a difference."""
    goal: str
    met: bool | None

    def line(self) -> str:
        """Return the figure in one line."""
        said = f"{self.benchmark}: {self.name} {_rounded(self.value)} {self.unit}"
        if self.yardstick_value is not None:
            said += f"; {self.yardstick} {_rounded(self.yardstick_value)} {self.unit}"
        if self.ratio is not None:
            said += f"; {_rounded(self.ratio)}"
        verdict = {True: "met", False: "not met", None: "no verdict"}[self.met]
        return f"{said} ({self.goal}: {verdict})"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

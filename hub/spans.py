"""Ranges of durations as people read them, on pages and in commands alike."""

_UNITS = ((5400.0, 3600.0, "h"), (90.0, 60.0, "min"), (0.0, 1.0, "s"))


def between(least: float, most: float) -> str:
    """A range of seconds in the unit that suits its end: 2 to 4 min, about 30 s, 0.5 to 2 h."""
    factor, unit = next((factor, unit) for above, factor, unit in _UNITS if most >= above)
    low, high = (_digits(max(0.0, seconds) / factor) for seconds in (least, most))
    if float(high) == 0:
        return f"under 1 {unit}"
    if low == high:
        return f"about {high} {unit}"
    return f"up to {high} {unit}" if float(low) == 0 else f"{low} to {high} {unit}"


def _digits(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:.0f}"

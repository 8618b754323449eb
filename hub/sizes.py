"""Numbers of bytes as people read them, in cards, commands and messages alike.

Pages have a form of their own, which does not break across lines: hub/views/figures.py.
"""


def size(count: float) -> str:
    """A number of bytes with a decimal unit, as 397.8 MB."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count:.0f} bytes"

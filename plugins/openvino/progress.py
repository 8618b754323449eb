"""How a step that runs as a child process tells the plugin of itself: on its standard output.

All else that it prints there is its log.
"""

import json
from typing import Any

MARK = "\x1e"  # begins a line that is meant for the plugin: no log has it


def say(**values: Any) -> None:
    """Tell the plugin something; called in the child."""
    print(f"\n{MARK}{json.dumps(values)}", flush=True)


def said(line: str) -> dict[str, Any] | None:
    """What a line of the child's output tells; None of a line of its log."""
    return json.loads(line[len(MARK) :]) if line.startswith(MARK) else None

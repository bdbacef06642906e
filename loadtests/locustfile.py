"""The load tests' entry: `just load` opens locust's web UI, `just load-headless` prints a table.

Each scenario is a module in `scenarios/`; locust offers their users in its UI (`--class-picker`).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scenarios.mixed import Visitor

__all__ = ["Visitor"]

"""`python -m workers`: one worker, with the settings of the environment."""

import sys

from hub.config import Settings
from workers.app import main

if __name__ == "__main__":
    sys.exit(main(Settings()))

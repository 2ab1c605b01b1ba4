"""A Celery worker: `python -m heterofed.hub.coordinator`, see `worker`. Its arguments are those of `celery worker`."""

from __future__ import annotations

import sys

from heterofed.errors import HeterofedError
from heterofed.hub.coordinator.worker import main

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HeterofedError as problem:
        sys.exit(str(problem))

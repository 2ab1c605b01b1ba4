"""Nobody has registered this; to import it leaves a trace."""

import os
from pathlib import Path

from tests.tiny import Host

Path(os.environ["TEST_FOLDER"], "evil").write_text("imported")


class Evil(Host):
    """Runs what nobody wants."""

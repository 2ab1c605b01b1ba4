"""What tests of parties need."""

from tests.scheduler.conftest import quick_and_exact

__all__ = ["quick_and_exact"]

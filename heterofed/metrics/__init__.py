"""What a run measured, as tables: rows of plain numbers that become one CSV file per declared set."""

from heterofed.metrics.tables import MetricsTable, declared_metrics, register_metrics

__all__ = ["MetricsTable", "declared_metrics", "register_metrics"]

"""What a run measured: series, tables, and what shows them. Nothing here loads torch."""

from heterofed.metrics.calculator import MetricCalculator, register_metric, score
from heterofed.metrics.history import HistoryBuffer
from heterofed.metrics.storage import EventStorage, get_event_storage
from heterofed.metrics.tables import MetricsTable, declared_metrics, register_metrics
from heterofed.metrics.tensorboard import TensorboardWriter
from heterofed.metrics.writers import CommonMetricPrinter, CSVWriter, EventWriter, JSONWriter

__all__ = [
    "CSVWriter",
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "HistoryBuffer",
    "JSONWriter",
    "MetricCalculator",
    "MetricsTable",
    "TensorboardWriter",
    "declared_metrics",
    "get_event_storage",
    "register_metric",
    "register_metrics",
    "score",
]

"""All parties of a task in one process: for tests, notebooks, and trying a scheduler out before others see it."""

from heterofed.simulate.predicting import predict_locally
from heterofed.simulate.training import LocalRun, run_locally

__all__ = ["LocalRun", "predict_locally", "run_locally"]

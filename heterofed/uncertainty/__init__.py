"""How sure a network is: several predictions of the same rows by dropout, an ensemble or SWAG, and what they say.

Works on modules alone, whoever trained them: a model that is in one place, or a split network whose parts stand side by
side in one process. At a party, `SwagHook` collects the moments of its own part while it trains.
"""

from heterofed.uncertainty.mean import MeanModel, aggregate, weighted_mean
from heterofed.uncertainty.moments import SwagHook, SwagMoments
from heterofed.uncertainty.predictions import SWAG, Ensemble, MCDropout, NoUncertainty, Uncertainty
from heterofed.uncertainty.spread import Spread, interpret

__all__ = [
    "SWAG",
    "Ensemble",
    "MCDropout",
    "MeanModel",
    "NoUncertainty",
    "Spread",
    "SwagHook",
    "SwagMoments",
    "Uncertainty",
    "aggregate",
    "interpret",
    "weighted_mean",
]

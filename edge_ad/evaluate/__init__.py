"""How well scores and anomaly maps tell good from defective."""

from edge_ad.evaluate.evaluator import (
    Evaluation,
    Evaluator,
    Metrics,
    decision_rates,
)

__all__ = ["Evaluation", "Evaluator", "Metrics", "decision_rates"]

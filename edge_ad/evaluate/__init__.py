"""How well scores and anomaly maps tell good from defective."""

from edge_ad.evaluate.evaluator import (
    Evaluation,
    Evaluator,
    Metrics,
    best_f1_threshold,
)

__all__ = ["Evaluation", "Evaluator", "Metrics", "best_f1_threshold"]

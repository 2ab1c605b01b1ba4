"""How good a model is: scores, curves and what each party contributes, as numbers, pictures and one page.

    evaluation = Evaluation(
        "binary",
        (ScoredSet("train", y_train, p_train), ScoredSet("test", y_test, p_test)),
        classes=("benign", "malignant"),
        parties=("bank", "shop"),
        ablated={"shop": ScoredSet("test", y_test, p_without_shop)},
    )
    write_evaluation(folder, evaluation)    # evaluation.json, report.html, pictures/*.png

Nothing here knows of a network or of torch. scikit-learn, matplotlib and jinja2 are imported only once they are used.
"""

from heterofed.report.evaluation import Evaluation, ScoredSet
from heterofed.report.needs import can_report
from heterofed.report.page import remove_evaluation, write_evaluation
from heterofed.report.scores import main_score, scores_of
from heterofed.report.summary import SetSummary, Summary, in_rows, read_summary, summarise

__all__ = [
    "Evaluation",
    "ScoredSet",
    "SetSummary",
    "Summary",
    "can_report",
    "in_rows",
    "main_score",
    "read_summary",
    "remove_evaluation",
    "scores_of",
    "summarise",
    "write_evaluation",
]

"""What stands around a pipeline: its answers are judged, where abstention was asked for, and counted."""

from __future__ import annotations

from ..errors import ReaugkdError
from .abstention import Judge
from .pipeline import Pipeline
from .prediction import Prediction
from .statistics import Statistics
from .student import StudentSession
from .text import Text


class CountedAnswers:
    """Answers as of a pipeline.

    Args:
        pipeline: answers.
        statistics: counts, texts that cannot be answered too.
        judge: says of each answer whether to abstain; None where nobody asked.
    """

    __slots__ = ("_judge", "_pipeline", "_statistics")

    def __init__(self, pipeline: Pipeline, statistics: Statistics, judge: Judge | None = None) -> None:
        self._pipeline, self._statistics, self._judge = pipeline, statistics, judge

    def answer(self, student: StudentSession, text: Text) -> Prediction:
        """The pipeline's answer to a text, judged.

        Raises:
            TextError: a text that cannot be answered.
            ModelError: the student cannot run, or computes no number.
        """
        try:
            answer = self._pipeline.answer(student, text)
        except ReaugkdError as error:
            self._statistics.count_error(error)
            raise
        if self._judge is not None:
            answer = self._judge.judged(answer)
        self._statistics.count(answer)
        return answer

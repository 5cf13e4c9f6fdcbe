"""Runs that are interrupted on purpose."""

import pytest


def until_second_evaluation(monkeypatch, program, config) -> None:
    """Trains until Ctrl-C in the second evaluation."""
    evaluate = program.evaluation.Evaluator.evaluate
    calls = []

    def stopped(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(program.evaluation.Evaluator, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            program.run(config)

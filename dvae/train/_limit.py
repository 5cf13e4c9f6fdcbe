"""When training must stop so that a run fits into the time that it was given.

    clock = Clock(TimeLimit(until=time.perf_counter() + 600, evaluations=8.0), monitored=True)
    while due.call:
        session.advance(due.call)
        if clock.late(session, due, ahead=1): ...

What is still to come is known from what it took before: a call of the step from the last record, a
validation and a checkpoint from the last ones, the final evaluation from an earlier session of the
run or from the validations.
"""

import time
from dataclasses import dataclass

import jax

from dvae.train._schedule import Due, LoopConfig
from dvae.train._session import Session
from dvae.train._timing import Timed, timed

__all__ = ["Clock", "TimeLimit", "Unlimited"]

# Seconds of what was not measured yet: a checkpoint, and pictures with all else that is written.
_SAVING, _WRITING = 5.0, 15.0
_UNKNOWN_SHARE = 0.2  # of the time until the limit, left for an evaluation of unknown length
_MARGIN, _MARGIN_SECONDS = 1.2, 3.0  # by which measured times are stretched


@dataclass(frozen=True)
class TimeLimit:
    """When a program must be over, and what it does after training."""

    until: float  # on `time.perf_counter`
    evaluations: float = 1.0  # work of the final evaluation, in validations
    finishing: float | None = None  # seconds after training in an earlier session; None: unknown
    # How often the evaluation does what a validation does once, for any images: see
    # `status.fixed_length`.
    rounds: float = 1.0


class Unlimited:
    """The clock of a run that may take any time, or of a process for which another one looks."""

    def validate(self, session: Session, *, lasting: bool) -> None:
        """Validates the state; see `Session.validate`."""
        session.validate(lasting=lasting)

    def save(self, session: Session, *, validated: bool) -> None:
        """Saves the state; see `Session.save`."""
        session.save(validated=validated)

    def recorded(self, session: Session, config: LoopConfig) -> None:
        """Does nothing: there is no speed to know."""

    def late(self, session: Session, due: Due, *, ahead: int) -> bool:
        """Returns False."""
        return False


class Clock(Unlimited):
    """Measures a run under a limit, and says when it must stop training."""

    def __init__(self, limit: TimeLimit, *, monitored: bool) -> None:
        """Starts the clock.

        Args:
          limit: of the program.
          monitored: whether the last step is validated wherever the run ends.
        """
        self._limit = limit
        self._monitored = monitored
        self._unknown = _UNKNOWN_SHARE * max(0.0, limit.until - time.perf_counter())
        self._call: float | None = None  # seconds of a call of the step
        self._first: tuple[float, int] | None = None  # the first look: when, after which call
        self._done = 0  # calls of the session that are known to be over
        self._validation: Timed | None = None  # the last one
        self._compiling = 0.0  # seconds of compiling validations
        self._saving: float | None = None

    def validate(self, session: Session, *, lasting: bool) -> None:
        """Validates the state, and measures how long that takes.

        Tracing and the first launches are in the time of a validation that is compiled. Where a
        final evaluation of many validations seems to need more than was left for it, the
        validation is timed once more, without a record.

        Args:
          session: whose state is validated.
          lasting: see `Session.validate`.
        """
        took = timed(lambda: session.validate(lasting=lasting))
        self._validation = took
        self._compiling = max(self._compiling, took.compiling)
        seems_long = self._evaluation(took) > self._unknown
        if took.compiling > took.seconds and seems_long and jax.process_count() == 1:
            self._validation = timed(lambda: session.task.evaluate(session.state))
            session.progress.skip_time(session.step)

    def save(self, session: Session, *, validated: bool) -> None:
        """Saves the state; the first time waits until all is written, to measure it.

        Args:
          session: whose state is saved.
          validated: see `Session.save`.
        """
        began = time.perf_counter()
        session.save(validated=validated)
        if self._saving is None:
            session.checkpoints.wait()
            self._saving = time.perf_counter() - began

    def recorded(self, session: Session, config: LoopConfig) -> None:
        """Takes over the speed that was measured since the last record."""
        if session.progress.speed:
            self._call = config.steps_per_call / session.progress.speed
        self._done = session.num_calls

    def late(self, session: Session, due: Due, *, ahead: int) -> bool:
        """Returns whether the run must end here, with the step that was just done.

        Args:
          session: after a call of the step.
          due: what is due after this step.
          ahead: calls until this is asked again.
        """
        if self._call is None:  # nothing was recorded yet
            jax.block_until_ready(session.state)
            now, self._done = time.perf_counter(), session.num_calls
            began, calls = self._first = self._first or (now, session.num_calls)
            if session.num_calls > calls:
                self._call = (now - began) / (session.num_calls - calls)
        call = self._call or 0.0
        last = self._limit.until - self._rest(due, several=ahead > 1) - ahead * call
        if time.perf_counter() + (session.num_calls - self._done) * call < last:
            return False
        # Calls are queued: what they will take was a guess, unless they are over.
        jax.block_until_ready(session.state)
        self._done = session.num_calls
        return time.perf_counter() >= last

    def _rest(self, due: Due, *, several: bool) -> float:
        """Returns the seconds of all that comes but steps, if the run goes on for a call or more.

        Args:
          due: what is due now.
          several: whether more can be due before the next look at the clock.
        """
        saving = _SAVING if self._saving is None else self._saving
        validation = 0.0 if self._validation is None else self._validation.seconds
        rest = saving + validation * self._monitored
        rest += validation * (due.validate or several) + saving * (due.save or several)
        return _MARGIN * (rest + self._finishing()) + _MARGIN_SECONDS

    def _finishing(self) -> float:
        """Returns the seconds between training and the end of the program."""
        if self._limit.finishing is not None:
            return self._limit.finishing
        if self._validation is None:
            return self._unknown
        # It is compiled anew, and what draws pictures as well.
        return self._evaluation(self._validation) + 2 * self._compiling + _WRITING

    def _evaluation(self, validation: Timed) -> float:
        """Returns the seconds of the final evaluation, compilation excluded."""
        return validation.of(self._limit.evaluations, self._limit.rounds)

"""The summaries of runs that may be damaged, and lines that are said once."""

import functools
from pathlib import Path

from dvae.train import status
from experiments.common import records
from experiments.common.groups import Summary

_NEEDS = ("config", "test", "num_steps")
say_once = functools.cache(status.say)  # a run is read several times


def read(workdir: Path) -> Summary | None:
    """Reads the summary of a run.

    Args:
      workdir: of the run.

    Returns:
      None where there is none, or it is damaged: a line on stderr says so. Its command, given
      again, evaluates the run and writes it.
    """
    try:
        summary = records.read_summary(workdir)
        if missing := [name for name in _NEEDS if name not in summary]:
            raise ValueError(f"{workdir / records.SUMMARY_FILE} lacks {', '.join(missing)}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        say_once(f"{error}; taken as not finished: its command, given again, writes it")
        return None
    return summary

"""The programs: `python -m experiments.NAME`."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the program; nobody else imports us so early
    from experiments.common import begin

    begin.importing()

"""The end of a run: a summary that JSON has no numbers for, a reader of the output that is gone."""

import numpy as np
import pytest
import tiny

from dvae.train import loop
from experiments.common import report as run_report

pytestmark = pytest.mark.usefixtures("one_device")


def test_a_summary_that_is_not_finite_names_its_fields(tmp_path, monkeypatch) -> None:
    report = tiny.report

    def broken(*arguments):
        made = report(*arguments)
        test = {"nll_nats": np.nan, "kl_nats": [1.0, -np.inf], "elbo_nats": 2.0}
        return made._replace(summary={**made.summary, "test": test})

    monkeypatch.setattr(tiny, "report", broken)
    with pytest.raises(loop.NonFiniteError) as error:
        tiny.run(tiny.Config(workdir=str(tmp_path)))
    said = f"test.kl_nats, test.nll_nats of the finished run in {tmp_path} are not finite"
    assert str(error.value).startswith(said)
    assert str(error.value).endswith("in another workdir")
    assert not (tmp_path / "summary.json").exists()


def test_one_name_stands_for_the_numbers_of_all_seeds(tmp_path) -> None:
    run_report.check_finite({"test": {"kl_nats": [[0.0], [1.0]], "count": 2, "of": "x"}}, tmp_path)
    with pytest.raises(loop.NonFiniteError, match=r"^test.kl_nats of the .* is not finite"):
        run_report.check_finite({"test": {"kl_nats": [[0.0], [np.nan, np.inf]]}}, tmp_path)

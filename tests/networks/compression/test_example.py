"""The example, from study to a smaller network elsewhere: what it prints is what it claims."""

import re
import runpy
from pathlib import Path

SHRINK = Path(__file__).parents[3] / "examples" / "shrink.py"


def test_from_study_to_a_smaller_network_without_ketwork(capsys) -> None:
    result, here, there = runpy.run_path(str(SHRINK))["main"]()
    assert result.after.parameters <= 0.25 * result.before.parameters
    assert there >= 0.985 * here
    printed = capsys.readouterr().out
    assert re.search(r"hidden +uses \d\.\d+ ± 0\.\d+ dimensions of 48", printed)
    ranks = [int(rank) for rank in re.findall(r"alone may collapse to (\d+) eigenstates", printed)]
    assert len(ranks) == 2
    assert max(ranks) < 16
    share = result.after.parameters / result.before.parameters
    assert (
        f"held-out digits: {here:.3f}; with {share:.0%} of the parameters, without ketwork: {there:.3f}"
        in printed
    )

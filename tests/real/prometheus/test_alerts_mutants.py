"""The unit tests of the rules notice faults; `make mutants` tries every fault there is, here it is the worst."""

import re
from dataclasses import replace

from tests.harness.mutants import EQUIVALENT, Mutant, mutants, run

MUTANTS = mutants()


def missed(some: list[Mutant]) -> set[str]:
    return {str(mutant) for mutant in run(some) if not mutant.caught_by}


def test_nothing_is_caught_where_there_is_no_fault() -> None:
    alerts = {mutant.name: mutant for mutant in MUTANTS if mutant.file == "alerting-rules.yml"}
    unchanged = [replace(mutant, what="", changed={}) for mutant in alerts.values()]
    assert missed(unchanged) == {str(mutant) for mutant in unchanged}


def test_a_clause_that_is_dropped_is_caught() -> None:
    dropped = [
        mutant for mutant in MUTANTS if mutant.file == "alerting-rules.yml" and mutant.what.startswith("without: ")
    ]
    assert len(dropped) > 30
    assert missed(dropped) == set()


def test_another_threshold_or_wait_or_severity_is_caught() -> None:
    changed = [
        mutant
        for mutant in MUTANTS
        if (mutant.file == "thresholds.yml" and re.match(r"[\d.]+ → ", mutant.what))
        or re.match(r"for: .* → 0s|another severity", mutant.what)
    ]
    assert len(changed) > 60
    assert missed(changed) == set()


def test_what_can_not_be_caught_is_no_other_than_is_said() -> None:
    assert set(EQUIVALENT) <= {str(mutant) for mutant in MUTANTS}

"""The unit tests of the rules, changed in what must not matter: labels of targets, evaluations that are late."""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

Case = dict[str, Any]
"""One file of unit tests, as promtool reads it."""

_EACH: Final = 8
"""How many samples there are until the label of a target changes."""
_NUMBER: Final = r"[-+]?(?:[\d.]+(?:e[-+]?\d+)?|Inf|NaN)"
_REPEATED: Final = re.compile(rf"(?P<first>{_NUMBER})(?P<step>[-+][\d.]+(?:e[-+]?\d+)?)?(?:x(?P<more>\d+))?")


def labelled(content: Case) -> Case:
    """Targets have three more labels: one is the same for all of them, one is each exporter's own, such as its node,
    and one changes while it runs, such as its version, which ends each series and begins another.

    `without_texts`, as a rate over such a change lacks what was counted in between: 55.17 % may be 55 %.
    """
    changed = without_texts(content)
    for case in changed["tests"]:
        case["input_series"] = [
            {"series": _with(one["series"], f"of {begin}"), "values": " ".join(part)}
            for one in case["input_series"] or ()
            for begin, part in _parts(samples(one["values"]))
        ]
    return changed


def between(content: Case, *, reverse: bool) -> Case:
    """Rules are evaluated four times as often, and looked at shortly before the next samples, `without_texts`.

    In `reverse`, each group reads what the groups that it depends on recorded one evaluation earlier.
    """
    changed = without_texts(content)
    step = _seconds(content["evaluation_interval"]) // 4
    changed["evaluation_interval"] = f"{step}s"
    if reverse:
        changed["group_eval_order"].reverse()
    for case in changed["tests"]:
        del case["promql_expr_test"]
        for check in case["alert_rule_test"]:
            check["eval_time"] = f"{_seconds(check['eval_time']) + 3 * step + step // 2}s"
    return changed


def without_texts(content: Case) -> Case:
    """The same rules, or the same tests, with no annotations."""
    changed = deepcopy(content)
    for group in changed.get("groups", ()):
        for rule in group["rules"]:
            rule.pop("annotations", None)
    for case in changed.get("tests", ()):
        for check in case.get("alert_rule_test") or ():
            for alert in check.get("exp_alerts") or ():
                alert.pop("exp_annotations", None)
    return changed


def _seconds(duration: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def samples(values: str) -> list[str]:
    """Each sample of promtool's notation: `1+1x2 _ stale` is 1, 2, 3, none, and the end. Raises `ValueError`."""
    found: list[str] = []
    for word in values.split():
        if word == "stale":
            found.append(word)
        elif gap := re.fullmatch(r"_(?:x(\d+))?", word):
            found += ["_"] * int(gap[1] or 1)
        elif repeated := _REPEATED.fullmatch(word):
            first, step = float(repeated["first"]), float(repeated["step"] or 0)
            found += [f"{first + number * step:.17g}" for number in range(int(repeated["more"] or 0) + 1)]
        else:
            raise ValueError(f"no values of a series: {word}")
    return found


def _parts(whole: list[str]) -> Iterator[tuple[int, list[str]]]:
    for begin in range(0, len(whole), _EACH):
        part = whole[begin : begin + _EACH]
        # Prometheus ends the series of a target whose labels have changed.
        yield begin, ["_"] * begin + part + (["stale"] if begin + _EACH < len(whole) else [])


def _with(series: str, changes: str) -> str:
    name, brace, rest = series.partition("{")
    of_exporter = "".join(re.findall(r'\b(?:namespace|instance)="(.*?)"', series))
    added = f'rack="one", shelf="{of_exporter}", board="{changes}"'
    return f"{name}{{{added}{', ' if brace else '}'}{rest}"

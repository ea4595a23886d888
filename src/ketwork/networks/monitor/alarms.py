"""Alarms: what the rules find at each look, each raised once while it lasts, and what is done then."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from ketwork.networks.monitor.look import Alarm, Key, Look
from ketwork.networks.monitor.rules import RULES, History, Rule

Action = Literal["warn", "stop"] | Callable[[Alarm], object]


class MonitorWarning(UserWarning):
    """What a monitor warns of: an alarm, or that something of its own failed."""


class StopTraining(RuntimeError):
    """Raised by a monitor with `action="stop"`; `alarms` are those that it raised at this step."""

    def __init__(self, alarms: tuple[Alarm, ...]) -> None:
        super().__init__("\n".join(map(str, alarms)))
        self.alarms = alarms


class Watch:
    """Judges look after look.

    An alarm is raised once its change has lasted as long as the rule asks, and again once it was over in between.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._history = History()
        self._in_a_row: dict[str, dict[Key, int]] = {rule.name: {} for rule in self.rules}

    def __call__(self, look: Look) -> tuple[Alarm, ...]:
        """The alarms of a look: one a rule, of the first layer in order of execution that it finds anew."""
        self._history.add(look)
        alarms = []
        for rule in self.rules:
            changes = list(rule(self._history))
            before = self._in_a_row[rule.name]
            counts = {change.layer.key: before.get(change.layer.key, 0) + 1 for change in changes}
            new = [change for change in changes if counts[change.layer.key] == rule.lasting]
            self._in_a_row[rule.name] = counts
            if new:
                first, *rest = new
                alarms.append(
                    Alarm(
                        rule.name,
                        rule.title,
                        look.step,
                        first.layer.label,
                        first.quantity,
                        first.since,
                        first.before,
                        first.after,
                        tuple(change.layer.label for change in rest),
                        rule.meaning,
                        rule.remedy,
                    )
                )
        return tuple(alarms)


def rules_of(alarms: object, quantities: Collection[str]) -> tuple[Rule, ...]:
    """The rules that an argument `alarms` names: none for False, for True all that have their quantities.

    Raises:
        TypeError, ValueError: it holds something else, or a rule whose quantities are not followed.
    """
    if alarms is True:
        return tuple(rule for rule in RULES.values() if set(rule.needs) <= set(quantities))
    if alarms is False:
        return ()
    given = [alarms] if isinstance(alarms, str | Rule) else alarms
    if not isinstance(given, Iterable):
        raise TypeError(
            f"Argument `alarms` must be True, False, or names or rules of alarms, but is {alarms!r}."
        )
    rules: dict[str, Rule] = {}
    for each in given:
        if isinstance(each, Rule):
            rules[each.name] = each
        elif each in RULES:
            rules[each] = RULES[each]
        else:
            near = difflib.get_close_matches(str(each), RULES, n=2) or list(RULES)
            raise ValueError(
                f"Argument `alarms` must name alarms, but has {each!r}. Near it: {', '.join(near)}."
            )
    for rule in rules.values():
        lacking = [name for name in rule.needs if name not in quantities]
        if lacking:
            names = " and ".join(map(repr, lacking))
            raise ValueError(
                f"Argument `alarms` has {rule.name!r}, which needs {names} among `quantities`. Name it there."
            )
    return tuple(rules.values())


def check_action(action: object) -> None:
    """Raises `ValueError` where an action is none."""
    if action not in ("warn", "stop") and not callable(action):
        raise ValueError(
            f"Argument `action` must be 'warn', 'stop' or a function that gets the alarm, but is {action!r}."
        )


def act(action: Action, alarms: tuple[Alarm, ...], level: int = 2) -> None:
    """Does what is to be done about alarms; `level` counts the frames up to the user's line.

    Raises:
        StopTraining: the action is "stop".
    """
    if not alarms:
        return
    if callable(action):
        for alarm in alarms:
            action(alarm)
    elif action == "warn":
        for alarm in alarms:
            warnings.warn(str(alarm), MonitorWarning, stacklevel=level + 1)
    else:
        raise StopTraining(alarms)

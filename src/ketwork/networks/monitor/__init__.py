"""`Monitor`: watches a network while it trains, leaves the training as it is, and raises alarms.

May import `study` and everything below it. Others take `MonitorRun`, the record of a run, also while it goes on.
"""

from ketwork.networks.monitor.alarms import Action, MonitorWarning, StopTraining
from ketwork.networks.monitor.look import Alarm, LayerLook, Look
from ketwork.networks.monitor.protection import undisturbed
from ketwork.networks.monitor.quantities import DEFAULT, QUANTITIES, Quantity
from ketwork.networks.monitor.result import MonitorRun
from ketwork.networks.monitor.rules import (
    RULES,
    Collapse,
    Dying,
    Explosion,
    Forgetting,
    Memorisation,
    NotFinite,
    Rule,
    Stopped,
    TokenCollapse,
    Vanishing,
)
from ketwork.networks.monitor.run import Monitor

__all__ = [
    "DEFAULT",
    "QUANTITIES",
    "RULES",
    "Action",
    "Alarm",
    "Collapse",
    "Dying",
    "Explosion",
    "Forgetting",
    "LayerLook",
    "Look",
    "Memorisation",
    "Monitor",
    "MonitorRun",
    "MonitorWarning",
    "NotFinite",
    "Quantity",
    "Rule",
    "StopTraining",
    "Stopped",
    "TokenCollapse",
    "Vanishing",
    "undisturbed",
]

"""Targets: what a worker hands its requests to. The consumer knows the Protocol and no other part of this package."""

from rabbitbal.worker.targets.contract import AppRaised, BadResponse, Target, TargetError
from rabbitbal.worker.targets.loader import load_target

__all__ = ["AppRaised", "BadResponse", "Target", "TargetError", "load_target"]

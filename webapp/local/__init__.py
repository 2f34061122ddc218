"""Embedded PostgreSQL and Valkey for one machine, and the processes that belong to them, under one supervisor.

The CLI makes a :class:`Supervisor`; anybody may ask :func:`running` and :func:`held`. It imports nothing of the
project but errors.
"""

from __future__ import annotations

from webapp.local.home import Services, held, running
from webapp.local.process import Child
from webapp.local.supervisor import Supervisor

__all__ = ["Child", "Services", "Supervisor", "held", "running"]

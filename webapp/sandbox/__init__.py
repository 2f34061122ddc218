"""A local Message Batches API: the same wire protocol, no key that counts, no money, and faults on request.

Tests, demos and the command line serve it; it imports nothing of the rest of the project. What it may be asked
for is in `config.py`, its own endpoints are in `control.py`, how keys map to workspaces is in `access.py`.
"""

from .app import SandboxApp, create_sandbox
from .config import SandboxConfig, SandboxConfigError

__all__ = ["SandboxApp", "SandboxConfig", "SandboxConfigError", "create_sandbox"]

"""The plugin contract: all that a task plugin needs, and how the host loads and calls plugins.
Plugins import from here and nowhere else in Batchdesk; the host's planning, processing and pages do too.
"""

from webapp.errors import InputError, InvalidOutput
from webapp.hooks.loading import load_plugins
from webapp.hooks.payloads import Image, Message, Subject
from webapp.hooks.registry import PluginInfo, PluginProblem, Registry
from webapp.hooks.specs import API_VERSION, hookimpl
from webapp.hooks.task import ModelSettings, Task

__all__ = [
    "API_VERSION",
    "Image",
    "InputError",
    "InvalidOutput",
    "Message",
    "ModelSettings",
    "PluginInfo",
    "PluginProblem",
    "Registry",
    "Subject",
    "Task",
    "hookimpl",
    "load_plugins",
]

"""The plugin contract: all that a plugin needs, and how the host loads and calls plugins.
Plugins import from here and nowhere else in Batchdesk; the host's planning, processing and pages do too.
"""

from webapp.errors import InputError, InvalidOutput
from webapp.hooks.configured import Secret, reveal
from webapp.hooks.declared import Line, Lines, named_lines
from webapp.hooks.files import file_records
from webapp.hooks.loading import load_plugins
from webapp.hooks.moving import OutputRecord, Record, RunFacts, Sink, Source
from webapp.hooks.payloads import Image, Message, Subject
from webapp.hooks.prompts import Prompt
from webapp.hooks.registry import Hooked, PluginInfo, PluginProblem, Registry
from webapp.hooks.specs import API_VERSION, hookimpl
from webapp.hooks.task import ModelSettings, Task

__all__ = [
    "API_VERSION",
    "Hooked",
    "Image",
    "InputError",
    "InvalidOutput",
    "Line",
    "Lines",
    "Message",
    "ModelSettings",
    "OutputRecord",
    "PluginInfo",
    "PluginProblem",
    "Prompt",
    "Record",
    "Registry",
    "RunFacts",
    "Secret",
    "Sink",
    "Source",
    "Subject",
    "Task",
    "file_records",
    "hookimpl",
    "load_plugins",
    "named_lines",
    "reveal",
]

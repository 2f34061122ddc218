"""The one tree of our errors. Any room may raise them; messages are sentences for people.

::

    BatchdeskError
    ├── SettingsError          the environment is unusable; lists every fault
    ├── InputError             records are unusable; lists problems by file, line and remedy
    │   └── BadSettings        ... a task cannot run with these settings; lists every fault by setting
    ├── LocalServicesError     the embedded PostgreSQL or Valkey cannot be started here
    ├── NotFound               no such run, batch, request, task
    ├── Refused                the thing exists, but what was asked is not possible in its state
    ├── Fenced                 another worker has taken this step over: stop writing
    ├── Leaving                this worker is to end: stop between two chunks
    ├── PluginError            a plugin broke the contract; names it
    ├── InvalidOutput          raised by a task's `process`: the answer is no use
    └── ApiError               the Message Batches API, or the way to it
        ├── ApiUnclear         no answer, or one that does not tell whether it was done
        └── ApiRefused         certainly not done
            ├── ApiThrottled   ... yet: come again after `retry_after`
            ├── ApiTooLarge    ... the body is over the limit
            ├── ApiNotFound    ... no such batch for this key
            └── ApiAccount     ... the key, the permission or the credit is at fault
"""

from __future__ import annotations

from collections.abc import Sequence


class BatchdeskError(Exception):
    """Root of the tree: its text can be shown to people as it is."""


class SettingsError(BatchdeskError):
    """The environment is unusable.

    :param faults: one sentence each, every fault found, not only the first.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("Batchdesk cannot start:\n" + "\n".join(f"  - {fault}" for fault in faults))


class InputError(BatchdeskError):
    """Records or arguments are unusable; nothing was sent."""


class BadSettings(InputError):
    """A task cannot run with these settings.

    :param faults: (setting, sentence), every fault found; the setting is empty where several do not go together.
    """

    def __init__(self, what: str, faults: Sequence[tuple[str, str]]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{what}:\n" + "\n".join(f"  - {sentence}" for _, sentence in faults))


class LocalServicesError(BatchdeskError):
    """The embedded PostgreSQL or Valkey cannot be started or reached here."""


class NotFound(BatchdeskError):
    """There is no such run, batch, request or task."""


class Refused(BatchdeskError):
    """The thing exists, but what was asked is not possible in the state it is in."""


class Fenced(BatchdeskError):
    """The step's epoch has moved on: another worker holds it now, so this one must not write."""


class Leaving(BatchdeskError):
    """This worker was asked to end, so the step stops where it can be taken up by another."""


class PluginError(BatchdeskError):
    """A plugin broke the contract; the message names the plugin and says what to mend."""


class InvalidOutput(BatchdeskError):
    """Raised by a task's ``process`` when the model's answer is no use; the text says why."""


class ApiError(BatchdeskError):
    """An answer of the API that is not the one asked for, or none at all.

    :param status: the HTTP status, or None when there was no answer.
    :param type: the API's error type (``invalid_request_error``, …) or None.
    :param error_code: ``error.details.error_code`` where the API gives one.
    :param request_id: the API's ``request-id``, for its support.
    :param retry_after: seconds the API asked us to wait, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,  # noqa: A002 - the API's word
        error_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.type = type
        self.error_code = error_code
        self.request_id = request_id
        self.retry_after = retry_after
        super().__init__(message)


class ApiUnclear(ApiError):
    """No answer (connection, timeout), or 408, 409, 5xx, or unreadable: it may have been done."""


class ApiRefused(ApiError):
    """A 4xx other than 408 and 409: certainly not done."""


class ApiThrottled(ApiRefused):
    """429 of a rate limit or a ramp limit: come again after ``retry_after`` seconds."""


class ApiTooLarge(ApiRefused):
    """413: the body is over the API's limit."""


class ApiNotFound(ApiRefused):
    """404: the API knows no such thing for this key."""


class ApiAccount(ApiRefused):
    """401, 402, 403, a spend cap or missing credit: a person has to act on the account."""

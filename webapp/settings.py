"""The one table of settings: every environment variable we read, its type, default and meaning.
Read once by the wiring with `load`; docs, `doctor` and error messages are drawn from the same table.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from webapp.errors import SettingsError

PREFIX = "BATCHDESK_"
SHARED_NAMES = ("DATABASE_URL", "REDIS_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
LONGEST = 2_592_000  # seconds, 30 days: longer waits are slips of the pen
API_REQUEST_TIMEOUT = 600.0  # seconds; the SDK's own default for one call


class PluginInstall(StrEnum):
    OFF = "off"  # only what ships with Batchdesk
    CLI = "cli"  # the platform engineer installs
    WEB = "web"  # an admin may install from the dashboard


class PollSchedule(tuple[tuple[float, float], ...]):
    """Steps of (until age in seconds, seconds between polls); the last age is infinite."""

    @classmethod
    def parse(cls, value: Any) -> PollSchedule:
        if isinstance(value, cls):
            return value
        steps: list[tuple[float, float]] = []
        for part in str(value).split(","):
            age_text, _, every_text = part.strip().partition(":")
            try:
                age = float("inf") if age_text == "*" else float(age_text)
                every = float(every_text)
            except ValueError:
                raise ValueError(f"'{part}' is not AGE:EVERY, like 300:30 or *:300") from None
            if not 0 < every <= LONGEST or not age > (steps[-1][0] if steps else 0):
                raise ValueError("ages must grow and waits must be positive seconds")
            steps.append((age, every))
        if steps[-1][0] != float("inf"):
            raise ValueError("the last part must be *:SECONDS, for every greater age")
        return cls(steps)

    def every(self, age: float) -> float:
        """Seconds to wait before the next poll of a batch that is `age` seconds old."""
        return next(every for until, every in self if age < until)


def _flag(value: Any) -> Any:
    return {"": False, "0": False, "1": True}.get(value, value) if isinstance(value, str) else value


# What the drivers say of a URL they cannot read may show its password; these words do not. Each driver is asked all
# the same, since each reads URLs in its own way, and imported only when there is one to read.
_ESCAPES = "Write special characters in its user and password as %XX"
DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
QUEUE_SCHEMES = ("redis", "rediss", "unix")


def _database(url: SecretStr | None) -> SecretStr | None:
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if url is None:
        return url
    try:
        read = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        raise ValueError(f"it cannot be read as a URL. {_ESCAPES}") from None
    if read.drivername not in DATABASE_SCHEMES:
        raise ValueError(f"it must begin with {', '.join(f'{one}://' for one in DATABASE_SCHEMES)}")
    for name in read.query:
        try:
            make_conninfo("", **{name: ""})
        except ProgrammingError:
            raise ValueError("there is a parameter in it that PostgreSQL does not know") from None
    return url


def _queue(url: SecretStr | None) -> SecretStr | None:
    from redis import ConnectionPool

    if url is None:
        return url
    scheme, separator, rest = url.get_secret_value().partition("://")
    if separator and scheme in ("valkey", "valkeys"):
        raise ValueError(f"write {scheme.replace('valkey', 'redis')}:// in place of {scheme}://")
    if not separator or scheme not in QUEUE_SCHEMES:
        raise ValueError(f"it must begin with {', '.join(f'{one}://' for one in QUEUE_SCHEMES)}")
    if scheme == "unix" and not rest.partition("?")[0].partition("/")[2]:
        raise ValueError("it names no socket, like unix:///path/to/socket")
    try:
        ConnectionPool.from_url(url.get_secret_value()).make_connection()  # opens none yet
    except TypeError:
        raise ValueError("there is a parameter in it that the client does not know") from None
    except ValueError:
        raise ValueError(f"it cannot be read as a URL. {_ESCAPES}") from None
    return url


def _api(url: str | None) -> str | None:
    import httpx2

    if url is None:
        return url
    try:
        read = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise ValueError(f"it cannot be read as a URL. {_ESCAPES}") from None
    if read.scheme not in ("http", "https") or not read.host or (read.port or 0) > 65535:
        raise ValueError("it must be http:// or https://, a host, and where needed a port")
    return url


class Settings(BaseModel):
    """One field per environment variable: BATCHDESK_<FIELD>, or the bare name for the shared ones."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    database_url: Annotated[SecretStr | None, AfterValidator(_database)] = Field(
        None, description="PostgreSQL, as postgresql://user:password@host/name. Absent: embedded, for one machine."
    )
    redis_url: Annotated[SecretStr | None, AfterValidator(_queue)] = Field(
        None, description="Redis or Valkey, as redis://host:6379/0. Absent: embedded, for one machine."
    )
    anthropic_api_key: SecretStr | None = Field(
        None, description="The key of the Message Batches API. Absent: the sandbox answers, and every page says so."
    )
    anthropic_base_url: Annotated[str | None, AfterValidator(_api)] = Field(
        None, description="Another address of the API (a proxy, a test server). Needs a key as well."
    )
    secret_key: SecretStr | None = Field(
        None,
        min_length=16,
        description="Signs sessions. Embedded: made once under the home; with DATABASE_URL it is required, "
        "the same on every web machine.",
    )
    home: Path = Field(
        Path("instance"), description="Folder for embedded data, logs, the sandbox and unpacked plugins."
    )
    host: str = Field("127.0.0.1", description="Address that the dashboard listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port that the dashboard listens on.")
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="How many proxies stand before the dashboard, each of which appends to X-Forwarded-For and "
        "X-Forwarded-Proto. 0: what these say is not believed.",
    )
    admin_email: str = Field("admin@example.com", description="The first admin's sign-in name.")
    admin_password: SecretStr | None = Field(
        None, min_length=8, description="The first admin's password. Absent: one is made and printed once."
    )
    poll_schedule: Annotated[PollSchedule, BeforeValidator(PollSchedule.parse)] = Field(
        PollSchedule.parse("300:30,1800:60,*:300"),
        description="How often a batch is polled, as AGE:EVERY in seconds: until age 300 every 30, and so on. "
        "Against the sandbox: every second.",
    )
    batch_max_requests: int = Field(10_000, ge=1, le=100_000, description="Most requests in one batch.")
    batch_max_bytes: int = Field(250_000_000, ge=1_000, le=256_000_000, description="Most bytes in one batch's body.")
    queue_limit: int = Field(
        200_000,
        ge=0,
        description="Most requests of one account in processing at the API; further batches wait for room. By the "
        "API's tiers: Start 200000, Build 300000, Scale 500000. 0: no limit.",
    )
    unknown_grace: float = Field(
        900.0,
        ge=0,
        le=LONGEST,
        description="Seconds after the end or death of a POST without a clear answer before a batch that no "
        "listing shows counts as never created. Below 600 only against the sandbox or a loopback address.",
    )
    missing_wait: float = Field(
        600.0, ge=0, le=LONGEST, description="Seconds between the two complete fetches that both lack a line."
    )
    max_attempts: int = Field(3, ge=1, le=20, description="Attempts at one item before automatic retries stop.")
    retry_delay: float = Field(
        300.0, ge=0, le=LONGEST, description="Seconds before the first automatic retry; doubles with each attempt."
    )
    keep_payloads: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days after a run is over for which its payloads are kept: what was sent and what came back, word "
        "for word. Outputs, costs, states and counts stay. 0: for ever.",
    )
    plugin_install: PluginInstall | None = Field(
        None, description="Who may install plugins: off, cli or web. Absent: web when embedded, else cli."
    )
    files: Path | None = Field(
        None,
        description="The folder that the source `files` may read, the same on every worker machine. Absent: none.",
    )
    safe_mode: Annotated[bool, BeforeValidator(_flag)] = Field(
        False, description="1 loads no plugin at all, to get in when one misbehaves."
    )

    @property
    def embedded(self) -> bool:
        """True when PostgreSQL or Valkey is ours to start."""
        return self.database_url is None or self.redis_url is None

    @property
    def sandbox(self) -> bool:
        """True when no API is configured: the local sandbox answers, and no money is spent."""
        return self.anthropic_api_key is None

    @property
    def web_install(self) -> PluginInstall:
        """Who may install plugins, with the default that fits the kind of installation."""
        return self.plugin_install or (PluginInstall.WEB if self.embedded else PluginInstall.CLI)


def variable(field: str) -> str:
    """The environment variable that a field of `Settings` is read from."""
    return field.upper() if field.upper() in SHARED_NAMES else PREFIX + field.upper()


VARIABLES: Mapping[str, str] = {variable(field): field for field in Settings.model_fields}


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment (default: the process's own).

    :raises SettingsError: with every fault found: unknown names, bad values, missing companions.
    """
    environ = os.environ if environ is None else environ
    values = {VARIABLES[name]: value for name, value in environ.items() if name in VARIABLES and value != ""}
    if "anthropic_api_key" not in values:
        values.setdefault("poll_schedule", "*:1")  # the sandbox is patient and takes seconds, not hours
    faults = [_unknown(name) for name in sorted(environ) if name.startswith(PREFIX) and name not in VARIABLES]
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += [_fault(detail) for detail in error.errors()]
        # The rest is looked at all the same: every fault is told at once.
        bad = {detail["loc"][0] for detail in error.errors()}
        settings = Settings.model_validate({name: value for name, value in values.items() if name not in bad})
    faults += _companions(settings, given=values)
    if faults:
        raise SettingsError(faults)
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def _unknown(name: str) -> str:
    ours = [one.removeprefix(PREFIX) for one in VARIABLES if one.startswith(PREFIX)]
    close = get_close_matches(name.removeprefix(PREFIX), ours, n=1)
    return f"{name} is not a setting." + (f" Did you mean {PREFIX}{close[0]}?" if close else " See docs/settings.md.")


def _fault(detail: Any) -> str:
    field = str(detail["loc"][0])
    # Every URL may hold a password, also one that is no secret as a whole.
    hidden = field.endswith("_url") or "Secret" in str(Settings.model_fields[field].annotation)
    given = "its value" if hidden else repr(detail["input"])
    reason = detail["msg"].removeprefix("Value error, ")
    return f"{variable(field)}: {given} will not do: {reason}. {Settings.model_fields[field].description}"


def _companions(settings: Settings, given: Collection[str]) -> list[str]:
    """Faults of settings that are no use together; `given` are the fields that have a value, sound or not."""
    faults = []
    if "anthropic_base_url" in given and settings.anthropic_api_key is None:
        faults.append("ANTHROPIC_BASE_URL is set without ANTHROPIC_API_KEY: set both, or neither for the sandbox.")
    if "database_url" in given and "secret_key" not in given:
        faults.append(
            "BATCHDESK_SECRET_KEY is required with DATABASE_URL, the same on every web machine: "
            "set it to a long random text."
        )
    local = settings.sandbox or is_loopback(settings.anthropic_base_url or "")
    if settings.unknown_grace < API_REQUEST_TIMEOUT and not local:
        faults.append(
            f"BATCHDESK_UNKNOWN_GRACE: {settings.unknown_grace:g} is below the request timeout of "
            f"{API_REQUEST_TIMEOUT:g} seconds, so a batch could be sent twice: use {API_REQUEST_TIMEOUT:g} or more."
        )
    return faults


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine, by its host alone."""
    from ipaddress import ip_address

    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def without_credentials(url: str) -> str:
    """A URL as it may be shown and stored: without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

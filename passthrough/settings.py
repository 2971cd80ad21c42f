"""What the operator decides, read once into one frozen value; the only reader of the environment.

The environment comes first, then the TOML file of `--config` or `PASSTHROUGH_CONFIG`, which holds the same
names in lower case, then the default. A name that nobody knows is an error that names the nearest one: a
misspelt limit must not be a limit that is silently absent.
"""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from passthrough import settings_texts as texts
from passthrough.errors import UserError

MIB = 1024 * 1024
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting. Field names carry their units; origins of the defaults stand beside them."""

    master_key: str | None = field(default=None, repr=False)
    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = Path()
    host: str = "127.0.0.1"
    port: int = 4000
    workers: int = 1
    log_level: str = "info"
    log_format: Literal["json", "text"] = "json"
    region: str = DEFAULT_REGION
    region_is_a_guess: bool = True
    runtime_endpoint: str | None = None
    agent_runtime_endpoint: str | None = None
    control_endpoint: str | None = None
    allow_http_upstream: bool = False
    bearer: str | None = field(default=None, repr=False)
    ca_bundle: str | None = None
    https_proxy: str | None = field(default=None, repr=False)
    no_proxy: str = ""
    max_body_bytes: int = 64 * MIB  # AWS takes 25,000,000 bytes, base64 and JSON around it grow that by half
    # of all open calls of a worker: eight of the largest at once, or 5,000 of 100 KB, in a container of 1 GB
    buffered_bodies_bytes: int = 512 * MIB
    key_header: str | None = None
    drain_delay_seconds: float = 0.0
    drain_seconds: float = 300.0
    on_client_disconnect: Literal["drain", "cancel"] = "drain"
    disconnect_drain_seconds: float = 600.0  # an answer of 64k tokens at 100 tokens a second
    disconnect_drains: int = 256
    connect_seconds: float = 10.0
    answer_seconds: float = 3600.0  # AWS lets an inference take 60 minutes
    client_stall_seconds: float = 300.0
    key_cache_seconds: float = 3600.0
    journal_max_bytes: int = 1024 * MIB
    journal_fsync_seconds: float = 1.0
    metrics_token: str | None = field(default=None, repr=False)
    unpriced_under_budget: Literal["refuse", "allow"] = "refuse"
    budgets_without_database: Literal["closed", "open"] = "closed"
    rates_without_database: Literal["closed", "open"] = "open"
    assumed_output_tokens: int | None = None  # of a call that names no maximum, for token rates; else the model's
    bytes_per_token: float = 1.0  # of a body, for token rates; no tokenizer makes two tokens of one byte
    webhook_url: str | None = None
    webhook_secret: str | None = field(default=None, repr=False)
    prices: Mapping[str, Any] = field(default_factory=dict)
    price_multipliers: Mapping[str, Any] = field(default_factory=dict)


# Setting → (names in the order in which they count, how its text is read)
_VARIABLES: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "master_key": (("PASSTHROUGH_MASTER_KEY", "LITELLM_MASTER_KEY"), texts.secret),
    "database_url": (("DATABASE_URL",), texts.text),
    "data_dir": (("PASSTHROUGH_DATA_DIR",), texts.folder),
    "host": (("PASSTHROUGH_HOST",), texts.host),
    "port": (("PASSTHROUGH_PORT",), texts.number(int, 0, 65535)),
    "workers": (("PASSTHROUGH_WORKERS",), texts.workers),
    "log_level": (("PASSTHROUGH_LOG_LEVEL",), texts.choice("debug", "info", "warning", "error")),
    "log_format": (("PASSTHROUGH_LOG_FORMAT",), texts.choice("json", "text")),
    "region": (("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_REGION_NAME"), texts.region),
    "runtime_endpoint": (("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_BEDROCK_RUNTIME_ENDPOINT"), texts.text),
    "agent_runtime_endpoint": (("AWS_ENDPOINT_URL_BEDROCK_AGENT_RUNTIME",), texts.text),
    "control_endpoint": (("AWS_ENDPOINT_URL_BEDROCK",), texts.text),
    "allow_http_upstream": (("PASSTHROUGH_ALLOW_HTTP_UPSTREAM",), texts.boolean),
    "bearer": (("AWS_BEARER_TOKEN_BEDROCK",), texts.token),
    "ca_bundle": (("AWS_CA_BUNDLE",), texts.text),
    "https_proxy": (("HTTPS_PROXY", "https_proxy"), texts.text),
    "no_proxy": (("NO_PROXY", "no_proxy"), texts.any_text),
    "max_body_bytes": (("PASSTHROUGH_MAX_BODY_BYTES",), texts.number(int, 1, 1024 * MIB)),
    "buffered_bodies_bytes": (("PASSTHROUGH_BUFFERED_BODIES_BYTES",), texts.number(int, 1, 1024 * 1024 * MIB)),
    "key_header": (("PASSTHROUGH_KEY_HEADER",), texts.header_name),
    "drain_delay_seconds": (("PASSTHROUGH_DRAIN_DELAY_SECONDS",), texts.number(float, 0, 3600)),
    "drain_seconds": (("PASSTHROUGH_DRAIN_SECONDS",), texts.number(float, 0, 86400)),
    "on_client_disconnect": (("PASSTHROUGH_ON_CLIENT_DISCONNECT",), texts.choice("drain", "cancel")),
    "disconnect_drain_seconds": (("PASSTHROUGH_DISCONNECT_DRAIN_SECONDS",), texts.number(float, 0, 86400)),
    "disconnect_drains": (("PASSTHROUGH_DISCONNECT_DRAINS",), texts.number(int, 0, 100000)),
    "connect_seconds": (("PASSTHROUGH_CONNECT_SECONDS",), texts.number(float, 0.1, 300)),
    "answer_seconds": (("PASSTHROUGH_ANSWER_SECONDS",), texts.number(float, 0.1, 86400)),
    "client_stall_seconds": (("PASSTHROUGH_CLIENT_STALL_SECONDS",), texts.number(float, 0.1, 86400)),
    "key_cache_seconds": (("PASSTHROUGH_KEY_CACHE_SECONDS",), texts.number(float, 0, 7 * 86400)),
    "journal_max_bytes": (("PASSTHROUGH_JOURNAL_MAX_BYTES",), texts.number(int, MIB, 1024 * 1024 * MIB)),
    "journal_fsync_seconds": (("PASSTHROUGH_JOURNAL_FSYNC_SECONDS",), texts.number(float, 0, 3600)),
    "unpriced_under_budget": (("PASSTHROUGH_UNPRICED_UNDER_BUDGET",), texts.choice("refuse", "allow")),
    "budgets_without_database": (("PASSTHROUGH_BUDGETS_WITHOUT_DATABASE",), texts.choice("closed", "open")),
    "rates_without_database": (("PASSTHROUGH_RATES_WITHOUT_DATABASE",), texts.choice("closed", "open")),
    "assumed_output_tokens": (("PASSTHROUGH_ASSUMED_OUTPUT_TOKENS",), texts.number(int, 1, 10_000_000)),
    "bytes_per_token": (("PASSTHROUGH_BYTES_PER_TOKEN",), texts.number(float, 1, 16)),
    "webhook_url": (("PASSTHROUGH_WEBHOOK_URL",), texts.web_address),
    "webhook_secret": (("PASSTHROUGH_WEBHOOK_SECRET",), texts.text),
    "metrics_token": (("PASSTHROUGH_METRICS_TOKEN",), texts.secret),
}
_CONFIG_VARIABLE = "PASSTHROUGH_CONFIG"
_TABLES = frozenset({"price_multipliers", "prices"})


def variable_names() -> frozenset[str]:
    """Every environment variable that is read here; each has its line in the README."""
    return frozenset(name for names, _ in _VARIABLES.values() for name in names) | {_CONFIG_VARIABLE}


def load(
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, str | int | None] | None = None,
) -> Settings:
    """Read the settings.

    `options` are those of the command line, by field name, None meaning "not given"; they come before all.
    Raises `UserError`, one sentence that names the setting and what it takes.
    """
    environ = os.environ if environ is None else environ  # noqa: TID251  # the one place
    _refuse_unknown(
        (name for name in environ if name.startswith("PASSTHROUGH_")),
        variable_names(),
        "environment variable",
    )
    path = config or (Path(environ[_CONFIG_VARIABLE]) if environ.get(_CONFIG_VARIABLE) else None)
    table = _read_file(path) if path else {}
    values: dict[str, Any] = {name: table[name] for name in _TABLES & table.keys()}
    for setting, (names, parse) in _VARIABLES.items():
        found = _find(names, environ, table)
        if found is not None:
            values[setting] = _parsed(*found, parse)
    values["region_is_a_guess"] = "region" not in values
    values.setdefault("data_dir", _default_data_dir(environ))
    for setting, value in (options or {}).items():
        if value is not None:
            values[setting] = _parsed("--" + setting.replace("_", "-"), str(value), _VARIABLES[setting][1])
    settings = Settings(**values)
    if settings.buffered_bodies_bytes < settings.max_body_bytes:
        raise UserError(
            "PASSTHROUGH_BUFFERED_BODIES_BYTES is less than PASSTHROUGH_MAX_BODY_BYTES, so the largest bodies would "
            "never be served: raise it, or lower the other."
        )
    return settings


def _find(names: tuple[str, ...], environ: Mapping[str, str], table: Mapping[str, Any]) -> tuple[str, str] | None:
    for name in names:
        if environ.get(name):  # an empty variable is an unset one, as in every AWS SDK
            return name, environ[name]
    for name in names:
        if name.lower() in table:
            value = table[name.lower()]
            if not isinstance(value, str | int | float | Decimal):
                raise UserError(f"{name.lower()} takes a text or a number; correct it or leave it out.")
            return name.lower(), str(value).lower() if isinstance(value, bool) else str(value)
    return None


def _parsed(name: str, text: str, parse: Callable[[str], Any]) -> Any:  # as many types as settings
    try:
        return parse(text)
    except ValueError as error:
        raise UserError(f"{name} takes {error}; correct it or leave it out.") from None


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().resolve() / "passthrough"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)  # prices are exact
    except OSError as error:
        raise UserError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The settings file {path} is not valid TOML: {error}.") from None
    known = frozenset(name.lower() for name in variable_names()) | _TABLES
    _refuse_unknown(table, known - {_CONFIG_VARIABLE.lower()}, f"name in {path}")
    for name in _TABLES & table.keys():
        if not isinstance(table[name], dict):
            raise UserError(f"{name} in {path} is no table; write [{name}] and what belongs to it below.")
    return table


def _refuse_unknown(names: Any, known: frozenset[str], kind: str) -> None:  # any iterable of str
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0)
            raise UserError(f"Unknown {kind} {name}; the nearest known one is {near[0]}.")

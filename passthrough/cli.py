"""The command line. A mistake is one sentence on standard error; exit 2 for usage, 1 for failure."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from passthrough import __version__, doctor, keys_cli, launch, ledger_cli, logs
from passthrough.bedrock.prices import PriceBook
from passthrough.bedrock.supplement import entries_of
from passthrough.certificates import Certificate
from passthrough.errors import Unavailable, UserError, alone
from passthrough.sandbox.access import DEFAULT_CREDENTIALS
from passthrough.sandbox.server import Sandbox
from passthrough.settings import Settings, load
from passthrough.storage.embedded import attached
from passthrough.storage.migrations import migrate as migrate_database

INTERRUPTED = 130  # as a shell reports a command that was interrupted

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(keys_cli.app, name="key")
app.add_typer(ledger_cli.app)

Config = Annotated[Path | None, typer.Option(help="A TOML file with settings; the environment comes first.")]


def main() -> None:
    """Run a command; turn every user's mistake into one sentence."""
    try:
        status = _run()
    except UserError as error:
        _fail(str(error), 1)
    except Unavailable as error:
        _fail(error.cause, 1)
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}; see passthrough --help.", error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def _run() -> object:
    try:
        return app(standalone_mode=False)
    except BaseExceptionGroup as group:
        raise alone(group) from None


def _fail(sentence: str, status: int) -> None:
    sys.stderr.write(f"passthrough: {sentence}\n")
    sys.exit(status)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """A transparent, native-format reverse proxy for AWS Bedrock with virtual keys."""
    if version:
        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (4000).")] = None,
    workers: Annotated[str | None, typer.Option(help="Worker processes (1), or 'auto': one for each core.")] = None,
    config: Config = None,
    migrate: Annotated[bool, typer.Option("--migrate", help="Bring the database to head first.")] = False,  # noqa: FBT002  # typer's way
    tls_cert: Annotated[str | None, typer.Option(help="Certificate chain (PEM): serve https.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its private key (PEM).")] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Serve a stand-in for Bedrock.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """Serve Bedrock through virtual keys."""
    settings = load(config=config, options={"host": host, "port": port, "workers": workers})
    logs.configure(level=settings.log_level, style=settings.log_format)
    if (tls_cert is None) != (tls_key is None):
        raise UserError("--tls-cert and --tls-key belong together: give both.")
    certificate = Certificate(tls_cert, tls_key) if tls_cert and tls_key else None
    launch.run(settings, migrate=migrate, certificate=certificate, sandbox=sandbox)


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database to head; safe to run from many replicas at once."""
    with database_url(load(config=config)) as url:
        asyncio.run(migrate_database(url))


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 4100,
) -> None:
    """Run the stand-in for Bedrock alone, for test suites.

    It fails on demand: see the README for the faults that x-sandbox-fault and model ids ask for.
    """

    async def stand_in() -> None:
        async with Sandbox(host=host, port=port) as running:
            typer.echo(f"Bedrock stand-in at {running.url}")
            typer.echo(f"AWS_ACCESS_KEY_ID={DEFAULT_CREDENTIALS.access_key}")
            typer.echo(f"AWS_SECRET_ACCESS_KEY={DEFAULT_CREDENTIALS.secret_key}")
            await asyncio.Event().wait()

    try:
        uvloop.run(stand_in())
    except OSError as error:
        raise UserError(f"Cannot listen on {host}:{port}: {error.strerror}; choose another --port.") from None


@app.command(name="doctor")
def examine(config: Config = None) -> int:
    """Say what is wrong before a user finds out; exit 1 if anything fails."""
    settings = load(config=config)
    logs.configure(level="error", style="text")  # what is found is said below
    findings = uvloop.run(doctor.examine(settings))
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject}: {finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1


@app.command()
def prices(
    model: Annotated[str, typer.Argument(help="A model id, profile or ARN.")],
    region: Annotated[str | None, typer.Option(help="Region of the call; by default that of the settings.")] = None,
    tier: Annotated[str | None, typer.Option(help="Service tier: priority, flex.")] = None,
    latency: Annotated[str | None, typer.Option(help="'optimized'.")] = None,
    config: Config = None,
) -> int:
    """Show what a model costs, and where the figure comes from."""
    settings = load(config=config)
    book = PriceBook(entries_of(settings.prices))
    price = book.price_of(model, region or settings.region, tier=tier, latency=latency)
    if price is None:
        typer.echo(f'The price of {model} is not known; name it in the settings file: [prices."{model}"]')
        return 1
    typer.echo(f"{model} in {region or settings.region}: {price.source}")
    for start, rates in ((0, price.rates), *price.above):
        above = f" with more than {start} input tokens" if start else ""
        for name in rates.__dataclass_fields__:
            rate = getattr(rates, name)
            if rate is not None:
                typer.echo(f"  {name.replace('_', ' '):15} {rate.normalize():f} USD per million tokens{above}")
    for name, amount in price.units.items():
        typer.echo(f"  {name.replace('_', ' '):15} {amount.normalize():f} USD each")
    return 0


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The database of the settings, the embedded one included: that of a running server, or started for a moment."""
    if settings.database_url:
        yield settings.database_url
    else:
        with attached(settings.data_dir) as url:
            yield url

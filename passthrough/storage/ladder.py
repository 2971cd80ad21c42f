"""The ladder of migrations, as alembic knows it."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def head_revision() -> str:
    """Name the newest migration."""
    return str(_scripts().get_current_head())


def revisions() -> list[str]:
    """Name all migrations, the newest first."""
    return [script.revision for script in _scripts().walk_revisions()]


def current_revision(connection: Connection) -> str | None:
    """Name the migration that a database is at; None before the first."""
    return MigrationContext.configure(connection).get_current_revision()


def migration_config(connection: Connection | None = None) -> Config:
    """Tell alembic where the migrations are: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parents[1]
    config = Config()
    folder = next(place for place in (package / "migrations", package.parent / "migrations") if place.is_dir())
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Climb to the head."""
    command.upgrade(migration_config(connection), "head")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(migration_config())

"""${message}

The previous version of the code is still running while this does, and after it. So: expand, backfill,
contract, in three releases. Indexes on big tables: CONCURRENTLY, in an autocommit_block(). Nothing of
passthrough is imported here, because it changes and this must not.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}

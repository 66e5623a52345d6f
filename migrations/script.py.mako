"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

# The version before this revision goes on with the new tables while it is being replaced. Delete this when it is done:
# - Add only what that version can leave out: columns are nullable, or have a default of the server.
# - Fill whatever you add. Take nothing away: a later migration does, once no version uses it; its name tells the
#   revision that a version must know (0006_needs_0005), and so do the names of all migrations after it.
# - Lock all tables that you change first, in the order in which requests use them.
# - A downgrade that would lose data says so: `op.loses`.


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}

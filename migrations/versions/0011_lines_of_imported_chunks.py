"""The lines of each imported chunk, for files that end within it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("imported_chunks", sa.Column("behind", sa.String(64)))
    op.add_column("imported_chunks", sa.Column("line_digests", sa.LargeBinary()))
    op.create_index("ix_imported_chunks_behind", "imported_chunks", ["behind"])


def downgrade() -> None:
    op.loses("digests of imported lines", "imported_chunks WHERE line_digests IS NOT NULL")
    op.drop_index("ix_imported_chunks_behind", "imported_chunks")
    op.drop_column("imported_chunks", "line_digests")
    op.drop_column("imported_chunks", "behind")

"""How Alembic reaches the database: through the engine that hub.db.migrate hands over."""

from alembic import context
from sqlmodel import SQLModel

import hub.models  # noqa: F401 - its tables are the target

with context.config.attributes["engine"].connect() as connection:
    context.configure(
        connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()

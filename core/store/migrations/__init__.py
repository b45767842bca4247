"""What Alembic runs. `core/store/schema.py` is its only caller; there is no alembic.ini."""

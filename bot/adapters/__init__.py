"""Chat platforms: each adapter translates events into values of `bot/chat.py` and cards back, nothing else."""

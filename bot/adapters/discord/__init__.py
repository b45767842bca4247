"""Discord: what happens there becomes events of `bot/chat.py`, and cards become messages there."""

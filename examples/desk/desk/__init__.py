"""A service desk assistant: it answers questions on tickets, service levels, engineers and spare parts."""

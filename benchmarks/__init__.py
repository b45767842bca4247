"""How fast Moss is: each benchmark measures one thing and says against which goal. `make bench`."""

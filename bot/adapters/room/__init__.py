"""The room: a local chat that Moss brings along, as a documented HTTP interface and a plain web page."""

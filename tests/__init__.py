"""The tests, read as a specification. `api` holds what is true on the wire, `unit` what is true of each room."""

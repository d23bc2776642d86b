"""Programs that talk to a server over HTTP: benches and examples. They never import the server."""

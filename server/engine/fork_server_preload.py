"""The module that the fork server imports by name: importing it preloads the engine."""

from server.engine import fork_server, output

output.let_writes_fail()
fork_server.end_with_parent()
fork_server.leave_terminal()
fork_server.preload()

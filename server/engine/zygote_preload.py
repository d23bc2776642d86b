"""The module that the fork server imports by name: importing it preloads the engine."""

from server.engine import output, zygote

output.let_writes_fail()
zygote.end_with_parent()
zygote.leave_terminal()
zygote.preload()

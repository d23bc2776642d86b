"""Files that a request only names: on another machine, or on this one."""

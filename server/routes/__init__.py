"""HTTP only: parse, call, reply. Errors are raised, never caught: `middleware.RequestContext` answers them."""

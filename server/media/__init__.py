"""The media room: what a client names as a picture becomes patches that the vision tower can take.

sources     the url of a picture -> bytes at hand, or an address to fetch from
addresses   which network addresses a stranger's url may lead to
fetch       the only file that opens sockets
decode      bytes -> an upright RGB picture
pixels      pure arithmetic: target sizes, patches, token counts
prepare     all of the above in order, for all pictures of a request
"""

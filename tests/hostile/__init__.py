"""The server against people who mean it harm: a table of cases for each way in, and one real server to outlive all.

launcher     `python -m server`, on the internet of the tests
internet     that internet: names, web hosts, and traps at addresses where no packet may arrive
certificates what its hosts show over TLS
house        the server under attack: speaks to it, and tells whether it is well
case         what a case is: a request, and what must come of it

urls redirects names bodies                     what is fetched from elsewhere
files data_urls                                 what is named on this machine, or comes along
wire json_bodies parameters tokens auth         the request itself
images clips documents                          the files inside; clip_files, pdf_files and packing make them

slow_hosts   how long texts take while a hundred hosts send a byte a second
"""

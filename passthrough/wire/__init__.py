"""HTTP/1.1 to the upstream, on asyncio protocols. Knows no Bedrock and no aiohttp.

    dial.py         opens a TCP or TLS connection, through an outbound proxy where one is set
    framing.py      where an answer ends, and how large its head may be
    connection.py   one kept-alive connection: strict parsing, one exchange at a time
    pool.py         kept-alive connections by address; expiry, limits, the clock of silent upstreams
    fetch.py        a small answer, taken in whole
    relay.py        an answer on its way to a client: framing, back-pressure, observation

A frame that arrives from the upstream is parsed, framed and written to the client's transport inside
one `data_received`: no task is woken. That is why this exists beside `aiohttp.ClientSession`.
"""

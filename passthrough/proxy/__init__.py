"""The data plane: the life of a call, in seven steps.

    1 route         method + raw target          → Call | Refusal
    2 authenticate  headers                      → Caller (a virtual key and what its header told) | Refusal
    3 admit         Caller + Call                → Admission, held until the call is over | Refusal
    4 sign          Admission + request          → Outgoing: the signed request as bytes
    5 forward       Outgoing                     → the answer, relayed byte for byte
    6 meter         the bytes going by           → Usage
    7 record        the entry: one log line and one row, whatever happened

`handler` has the steps in this order and is the only module that knows all of them; `refuse` is the other
exit. Nothing in here knows a database: what a step needs it declares as a Protocol.
"""

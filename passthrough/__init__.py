"""passthrough: a transparent, native-format reverse proxy for AWS Bedrock with virtual keys.

cli, launch, serving  the command line; processes; sockets and signals
inbound               the server's side of a client's connection
app                   the wiring
proxy/                the data plane: the life of a call, one module a step
wire/                 HTTP/1.1 to the upstream, and the relay of answers
bedrock/              what is known about Bedrock: operations, models, frames, usage, prices
policy/               what a key may do, what an entry of the ledger is: decisions without I/O
storage/              PostgreSQL: keys, ledger, the journal before it
identities            the AWS credentials that calls are signed with
admin/                the control plane: /key, /user, /team, /spend
sandbox/              a stand-in for Bedrock
"""

__version__ = "0.1.0"

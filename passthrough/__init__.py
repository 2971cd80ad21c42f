"""passthrough: a transparent, native-format reverse proxy for AWS Bedrock with virtual keys.

cli, keys_cli, ledger_cli, doctor  the command line; with bills: what AWS billed, for `reconcile`
launch, workers       from settings to processes, child: one that migrates; with master_key and trial: the keys of a
                      first start
serving, inbound      sockets and signals; the server's side of a client's connection; certificates: what it shows
healthcheck           what the image asks: does its server live?
app, plane            the wiring: of a service, of its data plane
proxy/                the data plane: the life of a call, one module a step
wire/                 HTTP/1.1 to the upstream, and the relay of answers
bedrock/              what is known about Bedrock: operations, models, frames, usage, prices
policy/               what a key may do, what an entry of the ledger is: decisions without I/O
storage/              PostgreSQL: keys, ledger, the journal before it
identities, webhooks  the AWS credentials that calls are signed with; events of budgets, told to others
admin/                the control plane: /key, /user, /team, /spend
probes, metrics, logs what is told of a process: to load balancers, Prometheus, and people; output: where the lines go
sandbox/              a stand-in for Bedrock
"""

__version__ = "0.1.0"

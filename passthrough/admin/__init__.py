"""The control plane: keys, who owns them, and what was changed, over HTTP in LiteLLM's words.

- `app`: the routes in the application
- `endpoint`: one route, who may call it, what it takes, what it answers
- `keys`, `users`, …: what can be done with each noun, without HTTP, and their routes
- `schemas`: the JSON that goes in and out; the OpenAPI document is made from it
"""

"""A transparent reverse proxy for AWS Bedrock with virtual keys."""

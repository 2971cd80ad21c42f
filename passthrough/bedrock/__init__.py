"""What is known about AWS Bedrock: operations, frames, usage, prices, faults. Pure: no I/O, no clock."""

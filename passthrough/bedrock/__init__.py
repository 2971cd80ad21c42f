"""What is known about AWS Bedrock: its operations, frames, usage shapes, prices and faults. Pure: no I/O, no clock."""

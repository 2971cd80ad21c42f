"""What a key may do and what a call cost: pure decisions, the clock is an argument."""

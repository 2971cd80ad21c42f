"""What is kept: the only folder that knows PostgreSQL. Rows do not leave it; values do."""

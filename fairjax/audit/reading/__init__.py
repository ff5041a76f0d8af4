"""Reading a table into audited rows: sources, columns, checks and findings."""

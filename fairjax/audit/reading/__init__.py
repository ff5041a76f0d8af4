"""From a table to the rows that are audited: sources, columns, checks, findings."""

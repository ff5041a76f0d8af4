"""Reports of a run's results: texts, tables, figures and an audit."""

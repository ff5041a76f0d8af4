"""From the results of a run to its report: words, tables, figures, an audit."""

"""From checked rows to the numbers of an audit, without what is withheld."""

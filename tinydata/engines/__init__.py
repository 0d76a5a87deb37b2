"""Where a verb runs: local processes or Spark, behind one interface."""

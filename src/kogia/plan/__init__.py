"""What it costs: operations, time and money."""

"""What supervisor-d costs, beside a floor program measured in the same run."""

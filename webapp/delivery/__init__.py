"""Where outputs go when a run is over: destinations, the deliveries owed to them, and the step `deliver`."""

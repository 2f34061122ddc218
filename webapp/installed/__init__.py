"""Which plugins there are: installed versions and their settings, the step `install`, and the set that is loaded."""

"""One offline HTML page about any of the project's directories."""

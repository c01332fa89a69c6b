"""The benchmark of jobsd beside its peers; benches/README.md has the method."""

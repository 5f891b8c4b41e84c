"""asv suites. Package code comes from the commit under test, this code from the working tree."""

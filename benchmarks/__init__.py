"""The asv suites: what vaebench's estimators, models and fleets cost."""

"""Every method on every category: the runs, their table and the published figures."""

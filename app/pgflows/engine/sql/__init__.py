"""SQL nodes of users, on sessions of the role that submitted the instance."""

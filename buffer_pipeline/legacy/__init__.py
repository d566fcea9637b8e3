"""The Django app that this system replaces: importing its export, and comparing releases with it."""

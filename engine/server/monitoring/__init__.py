"""Log and numbers of the server, for whoever runs it."""

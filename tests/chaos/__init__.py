"""The fault matrix: every actor dies at every moment of a move of the clients, under load. See README.md."""

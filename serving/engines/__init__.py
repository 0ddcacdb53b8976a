"""The programs that serve: each is a module whose `serve(command_line, interruptions)` returns the exit status."""
